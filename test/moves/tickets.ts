/** One task: a client that only draws numbers from sequences, and the check that none was drawn twice. */
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../src/errors/errors.js';
import { connect } from '../../src/postgres/connection.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';

/** Sequences that belong to no column, as applications use them by nextval: plain, cached in the session, downwards. */
export const SEQUENCES = `
  CREATE SEQUENCE public.ticket;
  CREATE SEQUENCE public.cached CACHE 20;
  CREATE SEQUENCE public.countdown INCREMENT BY -3;
  CREATE SEQUENCE public."Odd name" START 1000000;`;

const DRAW = `SELECT nextval('public.ticket') AS ticket, nextval('public.cached') AS cached,
  nextval('public.countdown') AS countdown, nextval('public."Odd name"') AS odd`;
const DRAWS_MAX = 1_000_000;
/** Without one it would keep a processor busy by itself, and take it from all else that is tested beside it. */
const THINK_MS = 30;

export interface Tickets {
  /** how many rounds were answered */
  readonly rounds: number;
  /** every error this client read */
  readonly refused: readonly string[];
  /** `sequence value` of every number that was handed out more than once */
  readonly repeated: readonly string[];
  /** Lets the statement in flight end and disconnects; may be called again. */
  stop(): Promise<void>;
}

/** Draws from all of {@link SEQUENCES} again and again until it is stopped. */
export async function drawTickets(endpoint: Endpoint): Promise<Tickets> {
  const client = await connect(endpoint, { applicationName: 'tickets' });
  const seen = new Set<string>();
  const repeated: string[] = [];
  const refused: string[] = [];
  let rounds = 0;
  let stopping = false;
  const run = async (): Promise<void> => {
    for (; !stopping && refused.length === 0 && rounds < DRAWS_MAX; rounds++) {
      const { rows } = await client.query<Record<string, string>>(DRAW);
      for (const [sequence, value] of Object.entries(rows[0] ?? {})) {
        const key = `${sequence} ${value}`;
        if (seen.has(key)) repeated.push(key);
        seen.add(key);
      }
      await delay(THINK_MS);
    }
  };
  const running = run().catch((error: unknown) => void refused.push(messageOf(error)));
  return {
    get rounds() {
      return rounds;
    },
    refused,
    repeated,
    stop: async () => {
      stopping = true;
      await running;
      await client.end();
    },
  };
}
