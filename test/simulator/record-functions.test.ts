/**
 * One task: the simulated functions of the record answer as the real ones do, and leave the same behind, call by call.
 *
 * What the simulator says is worth as much as its record: it is a second writing of the SQL, so it is compared with the first.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PinnedSide } from '../../src/cutover/side.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { armFence } from '../../src/postgres/fence.js';
import { installRecord, readIdentity, type Decision } from '../../src/postgres/record.js';
import { ensurePublication } from '../../src/postgres/streams.js';
import { Random } from '../history/random.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { Database, SqlError, type FenceRow } from './database.js';
import { Scheduler } from './scheduler.js';
import { Statements } from './statements.js';

const clusters = useClusters({ server: { major: 17 } });
const SCRIPTS = 25;
const CALLS = 40;
const STREAM = 'cutover_m1_forward';
const KEYS = ['epoch', 'state', 'nonce', 'attempt', 'reason', 'up', 'repeated', 'advanced', 'kept', 'fenced'] as const;

interface Call {
  readonly name: string;
  readonly values: readonly unknown[];
}

/** What a call did: its answer, as far as it does not name the server or the time, or its SQLSTATE. */
type Outcome = Readonly<Record<string, unknown>> | string;

let server: Connection;
let side: PinnedSide;

beforeAll(async () => {
  const database = await freshDatabase(clusters.server);
  server = await connect(clusters.server.endpoint(database));
  await server.query('CREATE TABLE public.writes (key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text)');
  await installRecord(server, 'open');
  const tables = [{ schema: 'public', table: 'writes' }];
  await ensurePublication(server, STREAM, tables);
  await armFence(server, tables, 'always');
  const { systemIdentifier, databaseOid, timeline } = await readIdentity(server);
  side = { systemIdentifier, databaseOid, timeline };
});

afterAll(async () => {
  await server.end();
});

function told(answer: Readonly<Record<string, unknown>>): Outcome {
  return Object.fromEntries(KEYS.flatMap((key) => ((answer[key] ?? null) === null ? [] : [[key, answer[key]]])));
}

async function onServer({ name, values }: Call): Promise<Outcome> {
  const places = values.map((_, index) => `$${(index + 1).toString()}`).join(', ');
  try {
    const { rows } = await server.query<{ answer: Record<string, unknown> }>(`SELECT ${name}(${places}) AS answer`, [
      ...values,
    ]);
    return told(rows[0]?.answer ?? {});
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

class Simulated {
  readonly scheduler = new Scheduler(1);
  readonly database: Database;
  readonly #statements = new Statements([]);

  constructor(fence: FenceRow['state']) {
    const nothing = (): void => undefined;
    this.database = new Database('simulated', side.systemIdentifier, this.scheduler, {
      ...{ flagChanged: nothing, accepted: nothing, committed: nothing, decided: nothing, duplicate: nothing },
    });
    this.database.fence = { epoch: 0, state: fence, nonce: '', seal_lsn: null };
    this.database.up = fence !== 'open';
    this.database.sequence = 10;
  }

  async call({ name, values }: Call): Promise<Outcome> {
    const got: { outcome?: Outcome } = {};
    this.#statements.run(this.database, this.scheduler.outside, `SELECT ${name}() AS answer`, values, (error, rows) => {
      const answer = (rows[0]?.answer ?? {}) as Record<string, unknown>;
      got.outcome = error instanceof SqlError ? error.code : error ? error.message : told(answer);
    });
    await this.scheduler.run(
      () => got.outcome !== undefined,
      Infinity,
      () => undefined,
    );
    return got.outcome ?? 'no answer';
  }

  get left(): object {
    const { fence, up, decisions, markers, sequence } = this.database;
    return {
      fence: { epoch: fence.epoch, state: fence.state, nonce: fence.nonce, up },
      decisions: decisionsOf([...decisions.values()]),
      markers: [...markers].map((key) => key.replace(`${side.systemIdentifier} `, '')).sort(),
      sequence,
    };
  }
}

function decisionsOf(decisions: readonly Decision[]): readonly object[] {
  return [...decisions]
    .sort((a, b) => a.epoch - b.epoch)
    .map(({ epoch, attempt, nonce, state, reason }) => ({ epoch, attempt, nonce, state, reason }));
}

async function leftOnServer(): Promise<object> {
  const { rows } = await server.query<{
    left: { fence: object; decisions: Decision[]; markers: string[]; sequence: number };
  }>(
    `SELECT jsonb_build_object(
       'fence', (SELECT jsonb_build_object('epoch', epoch, 'state', state, 'nonce', nonce, 'up', cutover.fence_is_up())
         FROM cutover.fence),
       'decisions', (SELECT coalesce(jsonb_agg(to_jsonb(d)), '[]') FROM cutover.decision d),
       'markers', (SELECT coalesce(jsonb_agg(kind || ' ' || epoch || ' ' || nonce), '[]') FROM cutover.marker),
       'sequence', (SELECT last_value FROM public.writes_key_seq)) AS left`,
  );
  const left = rows[0]?.left;
  return { ...left, decisions: decisionsOf(left?.decisions ?? []), markers: [...(left?.markers ?? [])].sort() };
}

async function reset(fence: FenceRow['state']): Promise<void> {
  await server.query(
    `TRUNCATE cutover.decision, cutover.marker, cutover.event;
     UPDATE cutover.fence SET epoch = 0, state = '${fence}', nonce = '', seal_lsn = NULL;
     SELECT setval('cutover.fence_flag', 1, ${(fence !== 'open').toString()}), setval('public.writes_key_seq', 10)`,
  );
}

/** A call that a step of some epoch could make, early, late or again. */
function anyCall(random: Random, known: readonly Decision[]): Call {
  const newest = known.reduce<Decision | undefined>((a, b) => (a && a.epoch > b.epoch ? a : b), undefined);
  const decision = random.below(3) === 0 ? known[random.below(Math.max(1, known.length))] : newest;
  const epoch = decision && random.below(8) > 0 ? decision.epoch : 1 + random.below(6);
  const nonce = decision && random.below(10) > 0 ? decision.nonce : 'another';
  const given = (state: string): string | null => (decision ? JSON.stringify({ ...decision, state }) : null);
  const sides = [JSON.stringify(side), JSON.stringify({ ...side, databaseOid: 1 })];
  const next = Math.max(0, ...known.map((d) => d.epoch)) + 1;
  const attempt = random.below(3) === 0 ? `a${epoch.toString()}` : `a${next.toString()}`;
  switch (random.below(12)) {
    case 0:
    case 1:
      return {
        name: 'cutover.begin',
        values: ['m1', attempt, `n${next.toString()}`, random.below(2), 'app', 'app_new', ...sides, true],
      };
    case 2:
    case 3:
      return { name: 'cutover.seal', values: [epoch, nonce, 0, STREAM, 1_000, 's', '[]'] };
    case 4:
      return { name: 'cutover.ready', values: [epoch, nonce, 0, STREAM, true] };
    case 5:
      return { name: 'cutover.commit', values: [epoch, nonce, 's', '[]'] };
    case 6:
      return { name: 'cutover.abort', values: [epoch, 'given up'] };
    case 7:
      return { name: 'cutover.release', values: [epoch] };
    case 8:
      return { name: 'cutover.lower', values: [epoch] };
    case 9:
      return { name: 'cutover.refuse', values: [epoch, random.pick([nonce, nonce, null])] };
    case 10: {
      const decided = given(random.pick(['committed', 'committed', 'aborted']));
      return decided === null
        ? { name: 'cutover.keep', values: [null] }
        : { name: random.pick(['cutover.open', 'cutover.keep']), values: [decided] };
    }
    default:
      return {
        name: 'cutover.advance_sequences',
        values: [epoch, ['public.writes_key_seq'], [random.below(100).toString()]],
      };
  }
}

test('every function of the record: the same answer and the same state after each of many random calls', async () => {
  const random = new Random(20);
  const seen = new Map<string, number>();
  for (let script = 0; script < SCRIPTS; script++) {
    const fence = random.pick<FenceRow['state']>(['open', 'open', 'closed']);
    await reset(fence);
    const simulated = new Simulated(fence);
    const calls: string[] = [];
    for (let count = 0; count < CALLS; count++) {
      const call = anyCall(random, [...simulated.database.decisions.values()]);
      calls.push(`${call.name} ${JSON.stringify(call.values)}`);
      const outcome = await onServer(call);
      expect(await simulated.call(call), calls.join('\n')).toEqual(outcome);
      expect(simulated.left, calls.join('\n')).toEqual(await leftOnServer());
      const kind = `${call.name} ${typeof outcome === 'string' ? outcome : 'answers'}`;
      seen.set(kind, (seen.get(kind) ?? 0) + 1);
    }
  }
  // The calls reached what they are meant to reach.
  for (const kind of ['cutover.seal answers', 'cutover.seal CUT02', 'cutover.commit answers', 'cutover.ready answers'])
    expect(seen.get(kind) ?? 0, JSON.stringify([...seen])).toBeGreaterThan(5);
});
