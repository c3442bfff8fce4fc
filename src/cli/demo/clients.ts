/** One task: tell what the clients of the application saw of the moves. */
import type { Book, Refusal } from '../../dev/ledger/book.js';
import type { Move } from './operator.js';
import { detail, heading, milliseconds, thousands } from './print.js';

/** When the application's writes were acknowledged. */
export type Writes = Pick<Book, 'acknowledgedBetween' | 'longestGapBetween'>;

export interface Seen {
  readonly writes: Writes;
  readonly acknowledged: number;
  /** reads that were answered */
  readonly reads: number;
  readonly refused: readonly Refusal[];
  readonly unknown: number;
  readonly longestStallMs: number;
  readonly moves: readonly Move[];
}

const HALF_SECOND_MS = 500;
const REFUSALS_MAX = 5;

export function printClients({ writes, acknowledged, reads, refused, unknown, longestStallMs, moves }: Seen): void {
  heading('What the clients saw');
  detail(`${thousands(acknowledged)} writes acknowledged, ${thousands(reads)} reads answered`);
  for (const [index, move] of moves.entries()) {
    const around = thousands(acknowledgedAround(writes, move));
    const gap = milliseconds(gapAround(writes, move));
    detail(`switch ${(index + 1).toString()}: ${around} writes in the second around it, longest gap ${gap}`);
  }
  detail(`longest stall of any client in the whole run: ${milliseconds(longestStallMs)}`);
  detail(`refused ${thousands(refused.length)}, without an answer ${thousands(unknown)}`);
  for (const { atMs, client, message } of refused.slice(0, REFUSALS_MAX)) {
    detail(`  ${new Date(atMs).toISOString()} ${client}: ${message}`);
  }
}

/** The second around the middle of the pause. */
export function acknowledgedAround(writes: Writes, { pausedAtMs, resumedAtMs }: Move): number {
  const middle = (pausedAtMs + resumedAtMs) / 2;
  return writes.acknowledgedBetween(middle - HALF_SECOND_MS, middle + HALF_SECOND_MS);
}

export function gapAround(writes: Writes, { pausedAtMs, resumedAtMs }: Move): number {
  return writes.longestGapBetween(pausedAtMs - HALF_SECOND_MS, resumedAtMs + HALF_SECOND_MS);
}
