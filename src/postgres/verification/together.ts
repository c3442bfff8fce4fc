/**
 * One task: know that a write over several shards is visible on both of two shards of a side, or on neither.
 *
 * Such a write is prepared on each shard before it is committed on any (two-phase.ts). So what one shard shows is by then committed or
 * prepared on the other, and visible there once what is prepared now has ended.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { CutoverError } from '../../errors/errors.js';
import type { Connection } from '../connection.js';
import type { Passage } from './confirm.js';

const POLL_FIRST_MS = 1;
const POLL_LAST_MS = 100;
/** What a proxy that died has left prepared is ended by another one well within that. */
const END_DEADLINE_MS = 60_000;

export class CommittedTogether implements Passage {
  /** what the second shard shows in one round is waited for on the first one in the next, and shown there in the one after that */
  readonly rounds = 3;
  /** a row that is held would keep what it waits for from ending */
  readonly holds = false;
  readonly #shards: readonly [Connection, Connection];

  constructor(one: Connection, other: Connection) {
    this.#shards = [one, other];
  }

  /** @throws CutoverError `refused_now` when something stays prepared */
  async pass(): Promise<void> {
    for (const shard of this.#shards) await ended(shard, await preparedOn(shard));
  }
}

async function ended(shard: Connection, names: readonly string[]): Promise<void> {
  const end = performance.now() + END_DEADLINE_MS;
  let left = names;
  for (let wait = POLL_FIRST_MS; left.length > 0; wait = Math.min(2 * wait, POLL_LAST_MS)) {
    if (performance.now() >= end)
      throw new CutoverError('refused_now', {
        problem: `a write over several shards stays prepared: ${left.join(', ')}`,
      });
    await delay(wait);
    const prepared = new Set(await preparedOn(shard));
    left = left.filter((name) => prepared.has(name));
  }
}

async function preparedOn(shard: Connection): Promise<readonly string[]> {
  const { rows } = await shard.query<{ gid: string }>(
    `SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid ~ '^cutover_shards_'`,
  );
  return rows.map(({ gid }) => gid);
}
