/** One task: hold the warm-up of the record's functions to changing nothing, wherever an epoch stands. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openDestination } from '../../src/postgres/record.js';
import { warmUpRecord } from '../../src/postgres/warm-up.js';
import { useClusters } from '../support/clusters.js';
import { FencedPair, type FencedSide } from './fenced-pair.js';

const clusters = useClusters({
  oldest: { major: 15, settings: { fsync: 'off' } },
  newest: { major: 18, settings: { fsync: 'off' } },
});

/** Every row of the record with the transaction that wrote it, and the flag. */
async function written({ writer }: FencedSide): Promise<unknown> {
  const tables = ['fence', 'decision', 'marker', 'event', 'migration', 'layout', 'checked_catalogue'];
  const rows = tables.map(
    (name) => `SELECT '${name}' AS name, t.xmin::text, to_jsonb(t) AS row FROM cutover.${name} t`,
  );
  const state = await writer.query(rows.join(' UNION ALL ') + ' ORDER BY 1, 2, 3');
  const flag = await writer.query('SELECT last_value, is_called FROM cutover.fence_flag');
  return { rows: state.rows, flag: flag.rows };
}

describe.each(['oldest', 'newest'] as const)('on the %s server', (server) => {
  let pair: FencedPair;
  beforeEach(async () => {
    pair = await FencedPair.make(clusters[server]);
  });
  afterEach(() => pair.end());

  async function warmUpBoth(): Promise<void> {
    for (const side of [pair.source, pair.destination]) {
      const before = await written(side);
      for (let turn = 0; turn < 2; turn += 1) await warmUpRecord(side.engine);
      expect(await written(side)).toEqual(before);
    }
  }

  it('a warm-up changes nothing at any point of an epoch, and the epoch goes on', async () => {
    await warmUpBoth();
    const decision = await pair.begin();
    await warmUpBoth();
    await pair.seal(decision);
    await warmUpBoth();
    await pair.prove(decision);
    await warmUpBoth();
    const committed = await pair.commit(decision);
    await warmUpBoth();
    await openDestination(pair.destination.engine, committed);
    await warmUpBoth();
    await expect(pair.source.writer.query('DELETE FROM public.item')).rejects.toMatchObject({ code: 'CUT01' });
    await pair.destination.writer.query('DELETE FROM public.item');
  });

  it.each([
    'LOCK TABLE cutover.marker IN EXCLUSIVE MODE',
    'LOCK TABLE cutover.fence IN EXCLUSIVE MODE',
    'SELECT FROM cutover.fence FOR UPDATE',
  ])('waits for nobody who has what it locks: %s', async (lock) => {
    await pair.source.writer.query(`BEGIN; ${lock}`);
    await warmUpRecord(pair.source.engine);
    await pair.source.writer.query('ROLLBACK');
  });
});
