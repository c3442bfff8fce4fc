/** One task: what the tests of faults share: the steps by hand, clients that write all along, and what must hold afterwards. */
import { expect, onTestFinished, vi } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import { awaitMoment } from '../../activities/moment.js';
import type { EngineContext } from '../../activities/context.js';
import { writeTimeline } from '../../activities/story.js';
import type { EpochPlan, Heading, PartResult } from '../../src/cutover/contract.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { messageOf } from '../../src/errors/errors.js';
import { withConnection, type Connection } from '../../src/postgres/connection.js';
import { Connections } from '../../src/postgres/connections.js';
import { readRecord, type Decision } from '../../src/postgres/record.js';
import type { Gate } from '../../src/proxy/gate.js';
import type { Pair } from './pair.js';
import { until } from './wait.js';

let attempts = 0;

/** An engine whose only node is gone for good. */
export function withoutNodes(pair: Pair): EngineContext {
  const fleet = { look: () => Promise.resolve([]), addresses: () => Promise.resolve([]), nodes: () => [] };
  return { ...pair.context, fleet };
}

/** Begins an epoch, as the engine does when the moment is right. */
export function planFor(pair: Pair, heading: Heading, context: EngineContext = pair.context): Promise<EpochPlan> {
  attempts++;
  const request = { migration: pair.migration, heading, attempt: `fault/${attempts.toString()}`, acceptLoss: false };
  return awaitMoment(context, request, () => Promise.resolve());
}

/** A whole move without a fault, its story written as the workflow would. */
export async function move(pair: Pair, heading: Heading): Promise<EpochPlan> {
  const plan = await planFor(pair, heading);
  const result = await new CriticalSection(pair.context).moveTraffic(plan);
  expect(result, JSON.stringify(result)).toMatchObject({ ok: true });
  await settle(pair, plan, result);
  return plan;
}

/** What the workflow does right after a commit. */
export async function settle(pair: Pair, plan: EpochPlan, result: PartResult): Promise<void> {
  const outcome = {
    epoch: plan.epoch,
    outcome: 'committed',
    reason: null,
    events: result.events,
    pausedMs: 0,
  } as const;
  await writeTimeline(pair.context, plan, outcome);
}

/** The steps as another process would run them: nothing shared with the first but the servers and the node. */
export function anotherEngine(pair: Pair): { section: CriticalSection; close(): Promise<void> } {
  const connections = new Connections({ applicationName: 'cutover engine' });
  return {
    section: new CriticalSection({ ...pair.context, connections }),
    close: () => connections.close(),
  };
}

/** Counts how often the gate is closed for a cutover from now on, until the test ends. */
export function countPauses(gate: Gate): () => number {
  let pauses = 0;
  const close = gate.close.bind(gate);
  const spy = vi.spyOn(gate, 'close').mockImplementation((reason) => {
    if (reason === 'cutover' && !gate.reasons.includes('cutover')) pauses++;
    close(reason);
  });
  onTestFinished(() => {
    spy.mockRestore();
  });
  return () => pauses;
}

/** What the record of a side says of an epoch. */
export async function decisionAt(cluster: Cluster, epoch: number): Promise<Decision | undefined> {
  const record = await withConnection(cluster.endpoint('app'), readRecord);
  return record?.decisions.find((d) => d.epoch === epoch);
}

export interface Sides {
  readonly source: Cluster;
  readonly destination: Cluster;
}

/** Which of the two servers accepts an application's write to `table` right now, asked of both; nothing is written. */
export async function acceptingSides(sides: Sides, table = 'item'): Promise<readonly ('source' | 'destination')[]> {
  const accepts = async (cluster: Cluster): Promise<boolean> => {
    try {
      await cluster.query('app', `DELETE FROM public.${table} WHERE false`);
      return true;
    } catch (error) {
      if ((error as { code?: string }).code === 'CUT01') return false;
      throw error;
    }
  };
  const names = ['source', 'destination'] as const;
  const answers = await Promise.all(names.map((name) => accepts(sides[name])));
  return names.filter((_, index) => answers[index]);
}

const MARK_SQL = `INSERT INTO public.item (name) VALUES ($1)`;
const BETWEEN_WRITES_MS = 10;

/** Clients of a proxy that insert rows all along and remember what was acknowledged. */
export class Writers {
  readonly acknowledged: string[] = [];
  readonly refused: string[] = [];
  readonly #running: Promise<unknown>;
  #stopping = false;

  private constructor(connections: readonly Connection[]) {
    this.#running = Promise.all(connections.map((connection, index) => this.#write(connection, index)));
  }

  /** Resolves once every client is connected. */
  static async start(connect: () => Promise<Connection>, clients = 3): Promise<Writers> {
    return new Writers(await Promise.all(Array.from({ length: clients }, connect)));
  }

  async #write(connection: Connection, client: number): Promise<void> {
    for (let turn = 0; !this.#stopping; turn++) {
      const token = `${process.pid.toString()}/${client.toString()}/${turn.toString()}/${performance.now().toString()}`;
      try {
        await connection.query(MARK_SQL, [token]);
        this.acknowledged.push(token);
      } catch (error) {
        // One refusal is enough to fail the test; a client whose connection is gone has nothing more to say.
        this.refused.push(messageOf(error));
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, BETWEEN_WRITES_MS));
    }
    await connection.end().catch(() => undefined);
  }

  /** Traffic flows: some more writes are acknowledged. */
  async flow(deadlineMs?: number): Promise<void> {
    const enough = this.acknowledged.length + 20;
    await until(
      'writes are acknowledged',
      () => this.acknowledged.length >= enough || this.refused.length > 0,
      deadlineMs,
    );
    expect(this.refused).toEqual([]);
  }

  /** Ends the clients and holds what they were told against both sides: nothing refused, lost or doubled. */
  async settle(sides: Sides): Promise<void> {
    this.#stopping = true;
    await this.#running;
    expect(this.refused).toEqual([]);
    for (const cluster of [sides.source, sides.destination])
      await until('both sides hold every acknowledged write', async () => {
        const missing = await this.#missing(cluster);
        return missing.length === 0;
      });
    for (const cluster of [sides.source, sides.destination]) {
      const doubled = await cluster.query('app', 'SELECT name FROM public.item GROUP BY name HAVING count(*) > 1');
      expect(doubled).toEqual([]);
    }
  }

  async #missing(cluster: Cluster): Promise<readonly string[]> {
    const rows = await cluster.query<{ name: string }>('app', 'SELECT name FROM public.item');
    const present = new Set(rows.map((row) => row.name));
    return this.acknowledged.filter((token) => !present.has(token));
  }
}
