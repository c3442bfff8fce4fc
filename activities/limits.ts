/**
 * One task: hold the slots of a migration to their limits: how much WAL each keeps on its server, and how far its subscriber is
 * behind. The disk that fills is that of a side that serves.
 *
 * An alarm is told once, as an event in the record and in the log, and once more when it is over.
 */
import type { Heading, Migration } from '../src/cutover/contract.js';
import { sameSide } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import { servingOf } from '../src/fleet/resolution.js';
import type { Connection } from '../src/postgres/connection.js';
import { appendEvent, lastEventOf } from '../src/postgres/events.js';
import { readRecord } from '../src/postgres/record.js';
import { streamHealth, type StreamHealth } from '../src/postgres/streams.js';
import { connectionTo, type EngineContext } from './context.js';
import { endsOf, streamsOf, type Stream } from './stream-ends.js';

const INTERVAL_MS = 1_000;
const HEADINGS = ['forward', 'reverse'] as const satisfies readonly Heading[];

export type Alarm = (sentence: string) => void;

interface Measure {
  /** what is too much, in words */
  readonly name: 'retained WAL' | 'lag';
  readonly bytes: number;
  /** 0 = no limit */
  readonly limitBytes: number;
}

/** Where alarms of a migration are told; the `@` keeps it apart from the stories of workflows. */
export function alarmStream(migration: string): string {
  return `${migration}@limits`;
}

export class SlotLimits {
  readonly #context: EngineContext;
  readonly #migration: Migration;
  readonly #alarm: Alarm;
  /** alarms that are not over, by slot and measure; read from the record at the first look at a slot */
  readonly #raised = new Map<string, Set<Measure['name']>>();
  #lookedAt = -Infinity;

  constructor(context: EngineContext, migration: Migration, alarm: Alarm) {
    this.#context = context;
    this.#migration = migration;
    this.#alarm = alarm;
  }

  /**
   * Looks at most once a second, however often it is called. A side that does not answer is passed over: its peer's slot is the one
   * that fills a disk.
   *
   * @param moved the destination serves, as far as the caller has heard: the slots are the way back then, which no limit may take away
   * @throws CutoverError `slot_limit_exceeded` with `cutover_slot_limit_action = "abort"`, before a commit
   */
  async check(moved: boolean): Promise<void> {
    if (performance.now() - this.#lookedAt < INTERVAL_MS) return;
    this.#lookedAt = performance.now();
    for (const stream of HEADINGS.flatMap((heading) => streamsOf(this.#migration, heading))) {
      const publisher = await connectionTo(this.#context, stream.publisher).catch(() => null);
      if (publisher) await this.#look(stream, publisher, moved);
    }
  }

  #publisher(heading: Heading): Promise<Connection> {
    return connectionTo(this.#context, endsOf(this.#migration, heading).publisher);
  }

  async #look({ name: slot, heading }: Stream, publisher: Connection, moved: boolean): Promise<void> {
    const { cutover } = this.#context.config();
    const health = await streamHealth(publisher, slot);
    if (!health) return;
    const raised = this.#raised.get(slot) ?? (await this.#readRaised(slot, await this.#publisher(heading)));
    this.#raised.set(slot, raised);
    for (const { name, bytes, limitBytes } of measuresOf(health, cutover)) {
      const exceeded = limitBytes > 0 && bytes > limitBytes;
      const isWayBack = moved || (exceeded && (await this.#hasMoved()));
      const aborts = exceeded && cutover.slotLimitAction === 'abort' && !isWayBack;
      const sentence = exceeded
        ? `slot ${slot}: ${name} ${bytes.toString()} bytes, limit ${limitBytes.toString()}${consequence(isWayBack, aborts)}`
        : `slot ${slot}: ${name} is within its limit again`;
      if (exceeded !== raised.has(name)) {
        await this.#tell(exceeded ? 'LimitExceeded' : 'LimitKept', {
          slot,
          measure: name,
          bytes,
          limitBytes,
          sentence,
        });
        if (exceeded) raised.add(name);
        else raised.delete(name);
      }
      // Told by an earlier try or not: whoever died in between must not keep the migration alive.
      if (aborts) throw new CutoverError('slot_limit_exceeded', { problem: sentence });
    }
  }

  /** What the caller has heard may be older than a move. Of the sides that answer: the other one's slot must not fill a disk meanwhile. */
  async #hasMoved(): Promise<boolean> {
    const { source, destination } = this.#migration;
    const read = await Promise.allSettled(
      [source, destination].map(async (side) => readRecord(await connectionTo(this.#context, side))),
    );
    const records = read.flatMap((one) => (one.status === 'fulfilled' && one.value ? [one.value] : []));
    const serving = servingOf(records)?.serving;
    return serving !== undefined && sameSide(serving, destination);
  }

  /** Where a side answers, it is told there; the log has it in any case. */
  async #tell(type: string, data: Readonly<Record<string, unknown>> & { readonly sentence: string }): Promise<void> {
    this.#alarm(data.sentence);
    await Promise.allSettled(
      HEADINGS.map(async (heading) => {
        await appendEvent(await this.#publisher(heading), alarmStream(this.#migration.id), type, data);
      }),
    );
  }

  /** Another watch may have told already: this one goes on where it ended. */
  async #readRaised(slot: string, publisher: Connection): Promise<Set<Measure['name']>> {
    const raised = new Set<Measure['name']>();
    for (const measure of ['retained WAL', 'lag'] as const) {
      const last = await lastEventOf(publisher, alarmStream(this.#migration.id), { slot, measure });
      if (last === 'LimitExceeded') raised.add(measure);
    }
    return raised;
  }
}

function measuresOf(
  { retainedBytes, lagBytes }: StreamHealth,
  limits: { readonly retainedWalLimitBytes: number; readonly slotLagLimitBytes: number },
): readonly Measure[] {
  return [
    { name: 'retained WAL', bytes: retainedBytes, limitBytes: limits.retainedWalLimitBytes },
    { name: 'lag', bytes: lagBytes, limitBytes: limits.slotLagLimitBytes },
  ];
}

function consequence(moved: boolean, aborts: boolean): string {
  if (aborts) return '; the migration is removed';
  return moved ? '; nothing is removed: it is the way back, which ending the task would free and lose' : '';
}
