/** One task: a record that was changed by hand: fences are raised again, contradictions are not served, and a person may decide. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import { resolve, type ResolveOptions } from '../../src/cli/resolve.js';
import { connect } from '../../src/postgres/connection.js';
import { SILENT } from '../../src/proxy/logger.js';
import { serve } from '../../src/serve.js';
import { acceptingSides, decisionAt, move, planFor, withoutNodes } from '../support/faults.js';
import { configText, usePair, type Pair } from '../support/pair.js';
import { until } from '../support/wait.js';

const GENERAL = 'cutover_lease = 300';
const BRISK = { wal_retrieve_retry_interval: '200ms' };

/** The pair's configuration as files. */
function filesOf(pair: Pair): { config: string; users: string } {
  const directory = mkdtempSync(join(tmpdir(), 'cutover-distrust-'));
  onTestFinished(() => {
    rmSync(directory, { recursive: true });
  });
  const files = { config: join(directory, 'pgdog.toml'), users: join(directory, 'users.toml') };
  const text = configText(pair.source, pair.destination, GENERAL);
  writeFileSync(files.config, text.config);
  writeFileSync(files.users, text.users);
  return files;
}

async function resolved(
  pair: Pair,
  options: Omit<ResolveOptions, 'files' | 'write'>,
): Promise<{ code: number; text: string }> {
  let text = '';
  const code = await resolve({ files: filesOf(pair), write: (part) => (text += part), ...options });
  return { code, text };
}

const lower = `SELECT setval('cutover.fence_flag', 1, false)`;
const fenceUp = async (cluster: Pair['source']): Promise<boolean> =>
  (await cluster.query<{ up: boolean }>('app', 'SELECT cutover.fence_is_up() AS up'))[0]?.up === true;

describe('one pair', () => {
  const pairOf = usePair({ source: 17, destination: 18, general: GENERAL, settings: BRISK });

  test('a fence lowered by hand on the side that does not serve is up again within a lease', async () => {
    const pair = pairOf();
    await move(pair, 'forward');
    await pair.source.query('app', lower);
    await until('the keeper raises it', () => fenceUp(pair.source));
    expect(await acceptingSides(pair)).toEqual(['destination']);
    await move(pair, 'reverse');
    await pair.destination.query('app', lower);
    await until('the keeper raises it', () => fenceUp(pair.destination));
    expect(await acceptingSides(pair)).toEqual(['source']);
  });

  test.each([
    ['is committed on one side and aborted on the other', `state = 'aborted', reason = 'by hand'`],
    ['has another nonce on each side', `nonce = 'forged'`],
    ['is committed, but was never sealed', 'seal_lsn = NULL'],
  ])('a decision that %s: nobody is served until it is put right', async (problem, change) => {
    const pair = pairOf();
    const epoch = (await move(pair, 'forward')).epoch.toString();
    const before = await decisionAt(pair.source, Number(epoch));
    await pair.source.query('app', `UPDATE cutover.decision SET ${change} WHERE epoch = ${epoch}`);
    const gate = pair.proxy.gate('prod');
    await until('the gate closes', () => gate.closed);
    const client = await pair.client();
    await expect(client.query('SELECT 1')).rejects.toMatchObject({
      code: '57P03',
      message: expect.stringContaining(`epoch ${epoch} ${problem}`) as string,
    });
    expect((await resolved(pair, {})).text).toContain(`contradicts itself: epoch ${epoch} ${problem}`);
    await pair.source.query(
      'app',
      `UPDATE cutover.decision SET state = 'committed', reason = NULL, nonce = $1, seal_lsn = $2 WHERE epoch = ${epoch}`,
      [before?.nonce, before?.seal_lsn],
    );
    await until('the gate opens', () => !gate.closed);
    await client.query('SELECT 1');
    await client.end();
    expect(await acceptingSides(pair)).toEqual(['destination']);
    await move(pair, 'reverse');
  });

  test('a decision that was deleted on both sides: the fence still knows of it, and nobody is served', async () => {
    const pair = pairOf();
    const { epoch } = await move(pair, 'forward');
    const sides = [pair.source, pair.destination];
    const kept = await Promise.all(
      sides.map((side) =>
        side.query('app', 'DELETE FROM cutover.decision d WHERE epoch = $1 RETURNING to_jsonb(d) AS row', [epoch]),
      ),
    );
    const gate = pair.proxy.gate('prod');
    await until('the gate closes', () => gate.closed);
    expect((await resolved(pair, {})).text).toMatch(
      new RegExp(
        `contradicts itself: epoch ${epoch.toString()} left the fence (open|sealed), but its decision is gone`,
      ),
    );
    for (const [index, side] of sides.entries())
      await side.query(
        'app',
        'INSERT INTO cutover.decision SELECT * FROM jsonb_populate_record(NULL::cutover.decision, $1)',
        [kept[index]?.[0]?.row],
      );
    await until('the gate opens', () => !gate.closed);
    expect(await acceptingSides(pair)).toEqual(['destination']);
    await move(pair, 'reverse');
  });

  test('a node does not start on a record of a newer program, and says which', async () => {
    const pair = pairOf();
    await pair.destination.query('app', 'UPDATE cutover.layout SET version = 99');
    try {
      const started = serve({ files: filesOf(pair), worker: false, logger: SILENT });
      await expect(started).rejects.toMatchObject({ code: 'record_newer', details: { version: 99 } });
    } finally {
      await pair.destination.query('app', 'UPDATE cutover.layout SET version = 2');
    }
  });

  test('a node that starts on a record that contradicts itself lets nobody through', async () => {
    const pair = pairOf();
    const { epoch } = await move(pair, 'forward');
    await move(pair, 'reverse');
    const set = (nonce: string): Promise<unknown> =>
      pair.destination.query('app', 'UPDATE cutover.decision SET nonce = $1 WHERE epoch = $2', [nonce, epoch]);
    const before = await decisionAt(pair.destination, epoch);
    await set('forged');
    const started = await serve({ files: filesOf(pair), worker: false, logger: SILENT });
    try {
      const client = await connect({ ...started.address, database: 'prod', user: 'postgres', password: 'secret' });
      await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '57P03' });
      await set(before?.nonce ?? '');
      await until('both nodes serve', () => !started.proxy.gate('prod').closed && !pair.proxy.gate('prod').closed);
      await client.query('SELECT 1');
      await client.end();
    } finally {
      await started.close(0);
    }
  });

  test('an epoch that nobody carries on is shown, and aborted by hand only by its name', async () => {
    const pair = pairOf();
    // The node is not told, so it is in nobody's hands.
    const plan = await planFor(pair, 'forward', withoutNodes(pair));
    await new CriticalSection({ ...pair.context, ...withoutNodes(pair) }).closeSource(plan);
    expect(await acceptingSides(pair)).toEqual([]);
    const shown = await resolved(pair, { database: 'prod' });
    expect(shown).toMatchObject({ code: 2 });
    expect(shown.text).toContain(`undecided: epoch ${plan.epoch.toString()} of "prod"`);
    const forbidden = { code: 'resolve_forbidden' };
    await expect(resolved(pair, { database: 'prod', abort: plan.epoch })).rejects.toMatchObject(forbidden);
    await expect(resolved(pair, { database: 'prod', commit: plan.epoch, confirm: 'prod' })).rejects.toMatchObject(
      forbidden,
    );
    const done = await resolved(pair, { database: 'prod', abort: plan.epoch, confirm: 'prod' });
    expect(done.text).toContain('its source serves');
    expect(await acceptingSides(pair)).toEqual(['source']);
    expect(await decisionAt(pair.source, plan.epoch)).toMatchObject({ state: 'aborted' });
    await expect(resolved(pair, { database: 'prod', commit: plan.epoch, confirm: 'prod' })).rejects.toMatchObject(
      forbidden,
    );
    expect(await resolved(pair, { database: 'prod' })).toMatchObject({ code: 0 });
  });

  test('a source lost while sealed: clients are told after the lease, and a proven destination is opened by hand', async () => {
    const pair = pairOf();
    const plan = await planFor(pair, 'forward');
    const section = new CriticalSection(pair.context);
    const closed = await section.closeSource(plan);
    const proven = await section.proveDestination(plan, closed.events, closed.ok ? closed.sealLsn : null);
    expect(proven).toMatchObject({ ok: true });
    await pair.source.kill();
    const client = await pair.client();
    const start = performance.now();
    await expect(client.query('SELECT 1')).rejects.toMatchObject({
      code: '57P03',
      hint: expect.stringContaining('cutover resolve') as string,
    });
    expect(performance.now() - start).toBeLessThan(10_000);
    expect((await resolved(pair, { database: 'prod' })).text).toContain(`--commit ${plan.epoch.toString()}`);
    const forbidden = { code: 'resolve_forbidden' };
    await expect(resolved(pair, { database: 'prod', abort: plan.epoch, confirm: 'prod' })).rejects.toMatchObject(
      forbidden,
    );
    await resolved(pair, { database: 'prod', commit: plan.epoch, confirm: 'prod' });
    await until('the node serves', () => !pair.proxy.gate('prod').closed);
    await client.query(`INSERT INTO public.item (name) VALUES ('by hand')`);
    await client.end();
    // It comes back: it is told what was decided, and never serves.
    await pair.source.start();
    await until(
      'the source knows',
      async () => (await decisionAt(pair.source, plan.epoch))?.state === 'committed',
      20_000,
    );
    expect(await acceptingSides(pair)).toEqual(['destination']);
  });
});
