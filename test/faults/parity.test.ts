/** One task: what parity demands beyond the marker, and what is left of it without a fence. */
import { describe, expect, test } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import type { PartResult } from '../../src/cutover/contract.js';
import { connect } from '../../src/postgres/connection.js';
import { acceptingSides, move, planFor, settle } from '../support/faults.js';
import { usePair } from '../support/pair.js';
import { until } from '../support/wait.js';

const reasonOf = (result: PartResult): string => (result.ok ? 'none' : result.reason);

describe('parity', () => {
  const pairOf = usePair({ source: 17, destination: 18, general: 'cutover_timeout = 1500' });

  test('an error of the apply worker since the moment: the attempt is aborted, whatever the marker says', async () => {
    const pair = pairOf();
    const plan = await planFor(pair, 'forward');
    const stray = (change: string): Promise<unknown> =>
      pair.destination.query(
        'app',
        // Of an origin, so that the way back does not carry it.
        `SELECT pg_replication_origin_session_setup('stray'); ALTER TABLE public.item DISABLE TRIGGER cutover_fence_write; ${change};
         ALTER TABLE public.item ENABLE ALWAYS TRIGGER cutover_fence_write`,
      );
    await pair.destination.query('app', `SELECT pg_replication_origin_create('stray')`);
    await stray(`INSERT INTO public.item (id, name) VALUES (777777, 'stray')`);
    await pair.source.query('app', `INSERT INTO public.item (id, name) VALUES (777777, 'right')`);
    await until('the apply worker fails', async () => {
      const rows = await pair.destination.query(
        'app',
        'SELECT FROM pg_stat_subscription_stats WHERE apply_error_count > 0',
      );
      return rows.length > 0;
    });
    await stray('DELETE FROM public.item WHERE id = 777777');
    const section = new CriticalSection(pair.context);
    const result = await section.moveTraffic(plan);
    expect(result).toMatchObject({ ok: false, step: 'awaitParity' });
    expect(reasonOf(result)).toMatch(/the apply worker met [1-9]\d* errors or conflicts since the moment/);
    await section.returnToSource(plan, 'errors');
    expect(await acceptingSides(pair)).toEqual(['source']);
  });
});

describe('cutover_fence = "off"', () => {
  const pairOf = usePair({ source: 17, destination: 18, general: 'cutover_fence = "off"' });

  test('a writer that bypasses the proxy is neither waited for nor refused, and the story says so', async () => {
    const pair = pairOf();
    // As the preparation of the move left them.
    for (const side of [pair.source, pair.destination])
      expect(await side.query('app', `SELECT FROM pg_trigger WHERE tgname LIKE 'cutover_fence%'`)).toEqual([]);
    const direct = await connect(pair.source.endpoint('app'));
    await direct.query('BEGIN');
    await direct.query(`INSERT INTO public.item (name) VALUES ('not waited for')`);
    const plan = await planFor(pair, 'forward');
    const result = await new CriticalSection(pair.context).moveTraffic(plan);
    expect(result).toMatchObject({ ok: true });
    await settle(pair, plan, result);
    await direct.query('ROLLBACK');
    await direct.end();
    expect(await acceptingSides(pair)).toEqual(['source', 'destination']);
    const client = await pair.client();
    await client.query(`INSERT INTO public.item (name) VALUES ('by the proxy')`);
    await client.end();
    const told = await pair.destination.query<{ reason: string }>(
      'app',
      `SELECT data ->> 'reason' AS reason FROM cutover.event WHERE type = 'SourceSealed' AND data ->> 'fence' = 'off'`,
    );
    expect(told).toEqual([
      { reason: expect.stringContaining('a write that bypassed the proxy may be lost') as string },
    ]);
    await move(pair, 'reverse');
    expect((await pair.source.query('app', `SELECT FROM public.item WHERE name = 'by the proxy'`)).length).toBe(1);
  });
});
