/** One task: the ledger as it is started and stopped around each fault, with one account of all that was ever acknowledged. */
import type { AcknowledgedWrite, Refusal, UnknownWrite } from '../../src/dev/ledger/book.js';
import { nowMs } from '../../src/dev/ledger/book.js';
import { startLedger, type Ledger, type ReaderStatistics } from '../../src/dev/ledger/ledger.js';
import { until } from '../support/wait.js';
import { EXTRA_TABLES } from './direct-writers.js';
import { spreadWrites } from './spread.js';
import type { FaultSystem } from './system.js';

const WRITERS = 4;
const THINK_MS = 25;
const FLOW_DEADLINE_MS = 60_000;

/** What the clients of one fault saw. Times are in milliseconds since 1970. */
export interface Seen {
  readonly fromMs: number;
  readonly toMs: number;
  readonly acknowledged: readonly AcknowledgedWrite[];
  readonly refused: readonly Refusal[];
  readonly unknown: readonly UnknownWrite[];
  readonly reader: ReaderStatistics;
}

/** A time in which a client got no answer at all, neither good nor bad. */
export interface Silence {
  readonly client: string;
  readonly node: string;
  readonly fromMs: number;
  readonly toMs: number;
}

export class Load {
  readonly acknowledged: AcknowledgedWrite[] = [];
  readonly unknown: UnknownWrite[] = [];
  readonly #system: FaultSystem;
  #ledger: Ledger | null = null;
  #fromMs = 0;

  constructor(system: FaultSystem) {
    this.#system = system;
  }

  /** Resolves once clients of every node have written. */
  async start(): Promise<void> {
    const endpoint = this.#system.nodes.map((name) => this.#system.endpointOf(name));
    const { shards } = this.#system;
    const what = shards === 1 ? { writtenTables: EXTRA_TABLES } : { writeOfTurn: spreadWrites(shards) };
    this.#ledger = await startLedger({ endpoint, writers: WRITERS, thinkMs: THINK_MS, ...what });
    this.#fromMs = nowMs();
    await this.flows();
  }

  /** Waits until every writer has written a few times more. */
  async flows(times = 5): Promise<void> {
    const ledger = this.#ledger;
    if (!ledger) return;
    const from = ledger.acknowledged.length;
    await until(
      'every client writes',
      () => {
        const counts = new Map<string, number>();
        for (const { client } of ledger.acknowledged.slice(from)) counts.set(client, (counts.get(client) ?? 0) + 1);
        return counts.size === WRITERS && [...counts.values()].every((count) => count >= times);
      },
      FLOW_DEADLINE_MS,
    );
  }

  async stop(): Promise<Seen> {
    const ledger = this.#ledger;
    if (!ledger) throw new Error('the load was started');
    this.#ledger = null;
    await ledger.stop();
    this.acknowledged.push(...ledger.acknowledged);
    this.unknown.push(...ledger.unknown);
    const { acknowledged, refused, unknown, reader } = ledger;
    return { fromMs: this.#fromMs, toMs: nowMs(), acknowledged, refused, unknown, reader };
  }

  /** The longest silences of each writer, longest first: between two answers, and at both ends of the time. */
  silences(seen: Seen): readonly Silence[] {
    return Array.from({ length: WRITERS }, (_, index) => {
      const client = `ledger writer ${(index + 1).toString()}`;
      const node = this.nodeOf(index);
      const own = [...seen.acknowledged, ...seen.refused, ...seen.unknown].filter((event) => event.client === client);
      const times = [seen.fromMs, ...own.map(({ atMs }) => atMs).sort((a, b) => a - b), seen.toMs];
      return times.slice(1).map((toMs, i) => ({ client, node, fromMs: times[i] ?? toMs, toMs }));
    })
      .flat()
      .sort((a, b) => b.toMs - b.fromMs - (a.toMs - a.fromMs));
  }

  /** The node of the writer with this index; the reader comes after the writers. */
  nodeOf(index: number): string {
    const { nodes } = this.#system;
    return nodes[index % nodes.length] ?? '';
  }

  get readersNode(): string {
    return this.nodeOf(WRITERS);
  }
}
