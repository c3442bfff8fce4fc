/** One task: move a live database, back, and there again, and tell each step of it. */
import { nowMs } from '../../dev/ledger/book.js';
import { holdsWithin } from '../../dev/processes.js';
import { gapAround, type Writes } from './clients.js';
import type { Move, Operator, WaitListener } from './operator.js';
import { detail, heading, milliseconds, printCopy, printMove } from './print.js';
import { SOURCE } from './stage.js';

export interface Plan {
  /** the name in pgdog.toml */
  readonly destination: string;
  readonly publication: string;
  /** given the side that serves when a move is over, shows what is to be seen of it */
  readonly afterEach?: (serving: 'source' | 'destination') => Promise<void>;
}

/** How many moves there are. */
export const SWITCHES = 3;
const RESHARD_DEADLINE_MS = 180_000;
const CUTOVER_DEADLINE_MS = 60_000;
const HALF_SECOND_MS = 500;
const COPY_LINE_EVERY_MS = 1_000;

/** Answers the moves in their order. */
export async function moveThereAndBack(operator: Operator, writes: Writes, plan: Plan): Promise<readonly Move[]> {
  const { destination, publication, afterEach } = plan;
  heading(`RESHARD ${SOURCE} ${destination} ${publication}: schema, copy, streams, cutover`);
  const task = await operator.reshard(SOURCE, destination, publication);
  const first = await moved(operator, writes, task, 0, RESHARD_DEADLINE_MS);
  await afterEach?.('destination');
  const reverse = await operator.reverseTask(CUTOVER_DEADLINE_MS);
  heading(`CUTOVER ${reverse}: the rollback`);
  await operator.command(`CUTOVER ${reverse}`);
  const second = await moved(operator, writes, reverse, first.epoch, CUTOVER_DEADLINE_MS);
  await afterEach?.('source');
  heading(`CUTOVER ${task}: forward again`);
  await operator.command(`CUTOVER ${task}`);
  const third = await moved(operator, writes, task, second.epoch, CUTOVER_DEADLINE_MS);
  await afterEach?.('destination');
  return [first, second, third];
}

/** Waits for the move, and until the second around it has passed. */
async function moved(
  operator: Operator,
  writes: Writes,
  task: string,
  epoch: number,
  deadlineMs: number,
): Promise<Move> {
  const move = await operator.untilMoved(task, epoch, deadlineMs, listener());
  printMove(move);
  await holdsWithin(() => nowMs() >= move.resumedAtMs + 2 * HALF_SECOND_MS, 3 * HALF_SECOND_MS);
  detail(`longest gap between two acknowledged writes: ${milliseconds(gapAround(writes, move))}`);
  return move;
}

/** Prints each phase, and a line a second for each table that is copied, to each shard. */
function listener(): WaitListener {
  const printedAt = new Map<string, number>();
  return {
    onPhase: (phase) => {
      if (phase !== '') detail(`${phase} …`);
    },
    onCopies: (copies) => {
      // The marker table of the protocol is one row; nobody waits for it.
      for (const copy of copies.filter(({ table }) => !table.startsWith('cutover.'))) {
        const copied = `${copy.table} ${copy.shard ?? ''}`;
        const last = printedAt.get(copied) ?? -Infinity;
        if (performance.now() - last < COPY_LINE_EVERY_MS) continue;
        printedAt.set(copied, performance.now());
        printCopy(copy);
      }
    },
    onAborted: ({ epoch, reason }) => {
      detail(`epoch ${epoch.toString()} was aborted, traffic stays: ${reason ?? 'no reason'}`);
    },
  };
}
