/**
 * One task: time what the disk needs to sync a page, again and again beside a bench, so that a disk that stands still is told from
 * a product that does.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { nowMs } from '../src/dev/ledger/book.js';
import { temporaryFolder } from '../src/dev/postgres-binaries.js';
import { rounded } from './statistics.js';

const EVERY_MS = 20;
const PAGE_BYTES = 8_192;
/** more than an hour of them */
const SYNCS_MAX = 200_000;

interface Sync {
  readonly fromMs: number;
  readonly toMs: number;
}

export class DiskProbe {
  readonly #folder = mkdtempSync(join(temporaryFolder(), 'cutover-probe-'));
  readonly #syncs: Sync[] = [];
  readonly #running: Promise<void>;
  #ended = false;

  /** Begins at once, on the disk that has the clusters of the bench. */
  constructor() {
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    const file = await open(join(this.#folder, 'page'), 'w');
    const page = Buffer.alloc(PAGE_BYTES);
    try {
      while (!this.#ended && this.#syncs.length < SYNCS_MAX) {
        const fromMs = nowMs();
        await file.write(page, 0, PAGE_BYTES, 0);
        await file.datasync();
        this.#syncs.push({ fromMs, toMs: nowMs() });
        await delay(EVERY_MS);
      }
    } finally {
      await file.close();
    }
  }

  /** The longest one that was under way between two moments, in milliseconds; 0 where there was none. */
  longestBetween(fromMs: number, toMs: number): number {
    const within = this.#syncs.filter((sync) => sync.toMs >= fromMs && sync.fromMs <= toMs);
    return rounded(within.reduce((longest, sync) => Math.max(longest, sync.toMs - sync.fromMs), 0));
  }

  async end(): Promise<void> {
    this.#ended = true;
    await this.#running;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
