/** One task: what the model found beyond the written rules: a late begin, an abort lost in a fail-over, ends racing moves. */
import { describe, expect, test } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import { finalizeMigration, removeMigration } from '../../activities/ending.js';
import { setFinal } from '../../src/postgres/record.js';
import { setEnding } from '../../src/postgres/migrations.js';
import { withConnection } from '../../src/postgres/connection.js';
import { acceptingSides, move, planFor, settle } from '../support/faults.js';
import { usePair, type Pair } from '../support/pair.js';
import { until } from '../support/wait.js';

const GENERAL = 'cutover_timeout = 1500\ncutover_lease = 1000';

async function writes(pair: Pair): Promise<boolean> {
  const client = await pair.client();
  try {
    await client.query(`INSERT INTO public.item (name) VALUES ('x')`);
    return true;
  } catch {
    return false;
  } finally {
    await client.end();
  }
}

describe('after the traffic has moved', () => {
  const pairOf = usePair({ source: 17, destination: 18, general: GENERAL });

  test('a begin at the side that does not serve any more is refused, and turns no node', async () => {
    const pair = pairOf();
    const section = new CriticalSection(pair.context);
    const first = await planFor(pair, 'forward');
    await settle(pair, first, await section.moveTraffic(first));
    // As a request that saw the source serve, and stalled until now.
    await expect(planFor(pair, 'forward')).rejects.toThrow(/does not serve/);
    expect(await writes(pair)).toBe(true);
    expect(await acceptingSides(pair)).toEqual(['destination']);
  });

  test('removing is refused, and takes nothing from the way back', async () => {
    const pair = pairOf();
    await expect(removeMigration(pair.context, pair.migration)).rejects.toMatchObject({ code: 'destination_serves' });
    await move(pair, 'reverse');
    expect(await acceptingSides(pair)).toEqual(['source']);
  });

  test('an end that was wished before a rollback began is refused by the record', async () => {
    const pair = pairOf();
    const there = await move(pair, 'forward');
    const back = await planFor(pair, 'reverse');
    // Finalize has read that the first epoch is the last one; the rollback has begun meanwhile.
    await withConnection(pair.destination.endpoint('app'), async (serving) => {
      await expect(setFinal(serving, there.epoch, 'committed', 'finalizing')).rejects.toMatchObject({
        code: 'epoch_closed',
      });
    });
    await new CriticalSection(pair.context).moveTraffic(back);
    expect(await acceptingSides(pair)).toEqual(['source']);
  });
});

describe('before it moves', () => {
  const pairOf = usePair({ source: 17, destination: 18, general: GENERAL });

  test(
    'an abort that a fail-over has lost is made again, and the source takes writes',
    { timeout: 60_000 },
    async () => {
      const pair = pairOf();
      const section = new CriticalSection(pair.context);
      const plan = await planFor(pair, 'forward');
      expect(await section.closeSource(plan)).toMatchObject({ ok: true });
      expect(await section.returnToSource(plan, 'given up')).toMatchObject({ outcome: 'aborted' });
      expect(await writes(pair)).toBe(true);
      // What a standby says that was promoted between the seal and the abort.
      await pair.source.query(
        'app',
        `UPDATE cutover.decision SET state = 'sealed', decided_at = NULL, source = jsonb_set(source, '{timeline}', '0');
       UPDATE cutover.fence SET state = 'sealed'; SELECT setval('cutover.fence_flag', 1, true)`,
      );
      await until('the source takes writes again', () => writes(pair), 30_000);
      expect(await acceptingSides(pair)).toEqual(['source']);
    },
  );

  test('no epoch begins while the migration is being removed, and none is removed under one', async () => {
    const pair = pairOf();
    await withConnection(pair.source.endpoint('app'), async (source) => {
      await setEnding(source, pair.migration.id, true);
      await expect(planFor(pair, 'forward')).rejects.toThrow(/is being removed/);
      await setEnding(source, pair.migration.id, false);
      const plan = await planFor(pair, 'forward');
      await expect(setEnding(source, pair.migration.id, true)).rejects.toThrow(/is still preparing/);
      await new CriticalSection(pair.context).returnToSource(plan, 'enough');
    });
  });

  test('a rollback that was given up does not keep the move from being finalized', { timeout: 60_000 }, async () => {
    const pair = pairOf();
    await move(pair, 'forward');
    const back = await planFor(pair, 'reverse');
    await new CriticalSection(pair.context).returnToSource(back, 'given up');
    await finalizeMigration(pair.context, pair.migration);
    expect(await acceptingSides(pair)).toEqual(['destination']);
  });
});
