/**
 * One task: stand in for a subscription with origin = none: what was written on one side arrives on the other, transaction by
 * transaction, in the order of the commits, some time later.
 */
import type { Database, LogEntry, Work } from './database.js';
import { Actor, type Scheduler } from './scheduler.js';

/** After an apply worker ended it is started again. */
const RESTART_MS = 50;

export class Stream {
  readonly name: string;
  readonly from: Database;
  readonly to: Database;
  /** its slot is gone, for good */
  broken = false;
  /** how far the subscriber has applied and flushed, in the publisher's log */
  progressLsn = 0;
  /** longest time a transaction travels, ms */
  latencyMs: number;
  readonly #scheduler: Scheduler;
  readonly #worker: Actor;
  #next = 0;
  #applying = false;

  constructor(name: string, from: Database, to: Database, latencyMs: number, scheduler: Scheduler) {
    this.name = name;
    this.from = from;
    this.to = to;
    this.latencyMs = latencyMs;
    this.#scheduler = scheduler;
    this.#worker = new Actor(`apply worker of ${name}`);
    from.listeners.push(() => {
      this.#pump();
    });
  }

  /** Nothing arrives for a while. */
  stall(forMs: number): void {
    this.#worker.stalledUntil = Math.max(this.#worker.stalledUntil, this.#scheduler.now + forMs);
  }

  get quiet(): boolean {
    return !this.#applying && this.from.log.slice(this.#next).every((entry) => entry.origin !== null);
  }

  #pump(): void {
    if (this.#applying || this.broken) return;
    while ((this.from.log[this.#next]?.origin ?? null) !== null) this.#next += 1;
    const entry = this.from.log[this.#next];
    if (!entry) return;
    this.#applying = true;
    this.#scheduler.after(
      this.#worker,
      this.#scheduler.between(0.1, this.latencyMs),
      () => {
        this.#apply(entry);
      },
      true,
    );
  }

  #apply(entry: LogEntry): void {
    const { to } = this;
    if (this.broken) {
      this.#applying = false;
      return;
    }
    if (this.from.stalledUntil > this.#scheduler.now || to.stalledUntil > this.#scheduler.now) {
      const goesOnAt = Math.max(this.from.stalledUntil, to.stalledUntil);
      this.#scheduler.after(
        this.#worker,
        goesOnAt - this.#scheduler.now,
        () => {
          this.#apply(entry);
        },
        true,
      );
      return;
    }
    to.transact(
      this.#worker,
      function* (transaction): Work<null> {
        if (entry.rows.length > 0) yield { lock: 'tables', mode: 'shared' };
        for (const marker of entry.markers) transaction.markers.add(marker);
        transaction.rows.push(...entry.rows);
        return null;
      },
      (error) => {
        this.#scheduler.after(
          this.#worker,
          error ? RESTART_MS : 0,
          () => {
            this.#applying = false;
            if (!error) {
              this.#next += 1;
              this.progressLsn = entry.lsn;
            }
            this.#pump();
          },
          true,
        );
      },
      { origin: this.name },
    );
  }
}
