/** One task: `cutover doctor` removes what nobody is in charge of, whoever of the two sides is gone, and nothing else. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EngineContext } from '../../activities/context.js';
import { diagnose, removeLeftovers, type Verdict } from '../../activities/leftovers.js';
import { doctor } from '../../src/cli/doctor.js';
import type { ConfigFiles } from '../../src/config/load.js';
import { CutoverError } from '../../src/errors/errors.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { withConnection } from '../../src/postgres/connection.js';
import { prepareIdentities } from '../../src/postgres/prepared-identity.js';
import { move } from '../support/faults.js';
import { configText, usePair, type Pair } from '../support/pair.js';
import { useTemporal } from '../support/temporal.js';
import { until } from '../support/wait.js';

const SLOTS = `SELECT slot_name AS name FROM pg_replication_slots`;
const STREAMS = `
  ${SLOTS} UNION ALL SELECT subname FROM pg_subscription UNION ALL SELECT pubname FROM pg_publication
  UNION ALL SELECT rolname FROM pg_roles WHERE rolname ~ '^cutover_'`;
const FENCED = `SELECT tgname AS name FROM pg_trigger WHERE tgname ~ '^cutover_fence' UNION ALL SELECT evtname FROM pg_event_trigger`;

const namesIn = async (cluster: Cluster, query: string): Promise<readonly unknown[]> =>
  (await cluster.query('app', query)).map((row) => row.name);

function verdicts(findings: readonly { verdict: Verdict }[]): readonly Verdict[] {
  return [...new Set(findings.map(({ verdict }) => verdict))];
}

const refusedBy = (error: CutoverError) => (): Promise<boolean> => Promise.reject(error);

/** As a move to shards has it. */
async function lendIdentity(pair: Pair): Promise<void> {
  const item = { ...{ schema: 'public', table: 'item', way: 'full' as const }, columns: [] };
  for (const cluster of [pair.source, pair.destination])
    await withConnection(cluster.endpoint('app'), (c) => prepareIdentities(c, pair.migration.id, [item]));
}
const IDENTITY = `SELECT relreplident AS name FROM pg_class WHERE oid = 'public.item'::regclass`;

describe('before a switch', () => {
  const pair = usePair({ source: 17, destination: 18 });

  beforeAll(() => lendIdentity(pair()));

  it('lists everything of a migration and leaves it alone while its workflow runs', async () => {
    const context: EngineContext = { ...pair().context, isRunning: (id) => Promise.resolve(id === 'test') };
    const before = await namesIn(pair().source, STREAMS);
    const { after, failures } = await removeLeftovers(context);
    expect(failures).toEqual([]);
    expect(verdicts(after.findings)).toEqual(['in use']);
    const { id } = pair().migration;
    const whats = after.findings.map(({ place, what }) => `${place} ${what}`);
    for (const [place, what] of [
      ['prod', `slot cutover_${id}_forward`],
      ['prod', `publication cutover_${id}_forward`],
      ['prod', `subscription cutover_${id}_reverse`],
      ['prod', `role cutover_${id}_replication`],
      ['prod', `claim ${id} of prod -> prod_new`],
      ['prod', 'replica identity public.item'],
      ['prod_new', 'replica identity public.item'],
      ['prod_new', `slot cutover_${id}_reverse`],
      ['prod_new', `subscription cutover_${id}_forward`],
    ])
      expect(whats).toContain(`${place ?? ''} ${what ?? ''}`);
    expect(await namesIn(pair().source, STREAMS)).toEqual(before);
    expect(await namesIn(pair().source, IDENTITY)).toEqual(['f']);
  });

  it('removes nothing where Temporal does not answer, and says so', async () => {
    const isRunning = refusedBy(new CutoverError('temporal_unreachable', { address: 'there', problem: 'refused' }));
    const before = await namesIn(pair().source, STREAMS);
    const { after } = await removeLeftovers({ ...pair().context, isRunning });
    expect(verdicts(after.findings)).toEqual(['unknown']);
    expect(after.problems.join()).toMatch(/nothing is removed: Temporal at there cannot be reached/);
    expect(await namesIn(pair().source, STREAMS)).toEqual(before);
  });

  it('keeps everything of an epoch that only the missing side can decide', async () => {
    const { source, destination, context }: Pair = pair();
    await destination.query('app', `UPDATE cutover.fence SET epoch = 1, state = 'ready'`);
    await source.stop('immediate');
    const before = await namesIn(destination, STREAMS);
    const { failures } = await removeLeftovers(context);
    expect(failures.join()).toMatch(/does not answer, knows whether epoch 1 was committed/);
    expect(await namesIn(destination, STREAMS)).toEqual(before);
    expect(before.length).toBeGreaterThan(0);
    await source.start();
  });

  it('frees the source of a subscriber that is gone, and later the subscriber that comes back', async () => {
    await pair().destination.stop('immediate');
    const { after, failures } = await removeLeftovers(pair().context);
    expect(failures).toEqual([]);
    expect(after.problems.join()).toMatch(/"prod_new" cannot be looked into/);
    expect(after.findings).toEqual([]);
    expect(await namesIn(pair().source, `${STREAMS} UNION ALL ${FENCED}`)).toEqual([]);
    expect(await namesIn(pair().source, IDENTITY)).toEqual(['d']);
    await pair().source.query('app', `INSERT INTO public.item (name) VALUES ('accepted')`);
    await pair().destination.start();
    await until('the subscriber is free as well', async () => {
      await removeLeftovers(pair().context);
      return (await namesIn(pair().destination, STREAMS)).length === 0;
    });
    expect(await namesIn(pair().destination, IDENTITY)).toEqual(['d']);
    // It has never served, and its tables were there before the move: they are the operator's again.
    expect(await namesIn(pair().destination, FENCED)).toEqual([]);
    await pair().destination.query('app', 'DELETE FROM public.item');
    expect(await diagnose(pair().context)).toEqual({ findings: [], problems: [] });
  });

  describe('the command', () => {
    const temporal = useTemporal();
    let directory: string;
    let files: ConfigFiles;
    let prepared: string;

    beforeAll(async () => {
      directory = mkdtempSync(join(tmpdir(), 'cutover-doctor-'));
      files = { config: join(directory, 'pgdog.toml'), users: join(directory, 'users.toml') };
      prepared = `${files.config}.cutover-7.next`;
      const text = configText(pair().source, pair().destination, '');
      writeFileSync(files.config, text.config);
      writeFileSync(files.users, text.users);
      writeFileSync(prepared, text.config);
      await pair().source.query('app', 'CREATE PUBLICATION cutover_00000000_9_forward');
    });

    afterAll(() => {
      rmSync(directory, { recursive: true });
    });

    async function run(temporalAddress: string, remove: boolean): Promise<{ code: number; text: string }> {
      let text = '';
      const write = (more: string): void => void (text += more);
      return { code: await doctor({ files, remove, temporalAddress, write }), text };
    }

    it('without Temporal lists and removes nothing: 1', async () => {
      const { code, text } = await run('127.0.0.1:1', true);
      expect(code).toBe(1);
      expect(text).toMatch(/^! whether a workflow is gone cannot be said, so nothing is removed: Temporal at 127/m);
      expect(text).toMatch(/^unknown {4}prod: publication cutover_00000000_9_forward \(Temporal was not asked\)$/m);
      expect(existsSync(prepared)).toBe(true);
    });

    it('names what is left over: 2, removes it when asked to: 0, and then finds nothing', async () => {
      const listed = await run(temporal().address, false);
      expect(listed.code).toBe(2);
      expect(listed.text).toMatch(/^left over {2}prod: publication cutover_00000000_9_forward \(no record tells/m);
      expect(listed.text).toMatch(/^left over {2}files: .*pgdog\.toml\.cutover-7\.next/m);
      expect(listed.text).toMatch(/^2 left over; cutover doctor --remove takes them away$/m);
      expect(existsSync(prepared)).toBe(true);
      expect(await run(temporal().address, true)).toEqual({ code: 0, text: 'nothing is left over\n' });
      expect(existsSync(prepared)).toBe(false);
      expect(existsSync(files.config)).toBe(true);
    });
  });
});

describe('after a switch', () => {
  const pair = usePair({ source: 17, destination: 18 });

  it('ends it on the side that serves and leaves the tombstone of the other one', async () => {
    const { source, destination, context } = pair();
    await move(pair(), 'forward');
    const { after, failures } = await removeLeftovers(context);
    expect(failures).toEqual([]);
    expect(after).toEqual({ findings: [], problems: [] });
    for (const cluster of [source, destination]) expect(await namesIn(cluster, STREAMS)).toEqual([]);
    await expect(source.query('app', 'DELETE FROM public.item')).rejects.toMatchObject({ code: 'CUT01' });
    await destination.query('app', `INSERT INTO public.item (name) VALUES ('accepted')`);
    expect(await destination.query('app', 'SELECT state FROM cutover.decision')).toEqual([{ state: 'finalized' }]);
  });

  it('removes what an end that was cut short has left of a migration that is over', async () => {
    const { source, destination, context } = pair();
    const { id } = pair().migration;
    await source.query(
      'app',
      `SELECT pg_create_logical_replication_slot('cutover_${id}_forward', 'pgoutput', false, false, true)`,
    );
    await destination.query('app', `CREATE PUBLICATION cutover_${id}_reverse`);
    const seen = await diagnose(context);
    expect(seen.findings.map(({ what, verdict }) => `${verdict}: ${what}`)).toEqual([
      `left over: slot cutover_${id}_forward (failover)`,
      `left over: publication cutover_${id}_reverse`,
    ]);
    expect((await removeLeftovers(context)).after.findings).toEqual([]);
    for (const cluster of [source, destination]) expect(await namesIn(cluster, STREAMS)).toEqual([]);
  });
});
