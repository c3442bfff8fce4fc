/** One task: the parts of a move as an operator runs them one by one: SCHEMA_SYNC, REPLICATE, COPY_DATA, CUTOVER. */
import { expect, it, onTestFinished } from 'vitest';
import { STEPS } from '../../src/cutover/epoch.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { PUBLICATION } from '../../src/dev/ledger/prepare.js';
import { Moving } from './moving.js';

/** Objects outside the schema `cutover` of one kind: what SCHEMA_SYNC made so far. */
async function made(cluster: Cluster): Promise<{ tables: number; primaryKeys: number; otherIndexes: number }> {
  const [row] = await cluster.query<{ tables: number; primaryKeys: number; otherIndexes: number }>(
    'app',
    `SELECT count(*) FILTER (WHERE c.relkind = 'r')::int AS tables,
       count(*) FILTER (WHERE i.indisprimary)::int AS "primaryKeys",
       count(*) FILTER (WHERE NOT i.indisprimary)::int AS "otherIndexes"
     FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid WHERE c.relnamespace = 'public'::regnamespace`,
  );
  return row ?? { tables: 0, primaryKeys: 0, otherIndexes: 0 };
}

interface PlanLine {
  readonly part: string;
  readonly name: string;
  readonly verdict: string;
  readonly detail: string;
  readonly remedy: string;
}

/** `CUTOVER … DRY RUN`: the checks of its preflight that fail; every check must be there, and the eight steps. */
async function failedChecks(moving: Moving, task: string): Promise<PlanLine[]> {
  const rows = await moving.system.admin<PlanLine & Record<string, string>>(`CUTOVER ${task} DRY RUN`);
  const ofPart = (part: string): PlanLine[] => rows.filter((row) => row.part === part);
  expect(ofPart('plan').map(({ verdict }) => verdict)).toEqual(STEPS.map(() => 'will run'));
  const checks = ofPart('preflight');
  const names = checks.map(({ name }) => name);
  expect(names).toEqual(expect.arrayContaining(['nodes', 'versions', 'wal-level', 'users', 'privileges', 'lease']));
  expect(names).not.toContain('destination-empty');
  for (const { name, verdict, detail } of checks) {
    expect(['ok', 'warning', 'failed'], name).toContain(verdict);
    expect(detail, name).not.toBe('');
  }
  return checks.filter(({ verdict }) => verdict === 'failed');
}

/** A dry run of `task` names a role that `serving` uses and the other side lacks, and what to do about it. */
async function expectMissingRoleNamed(moving: Moving, serving: Cluster, task: string): Promise<void> {
  await serving.query('app', 'CREATE ROLE reporter; GRANT SELECT ON public.documents TO reporter');
  expect(await failedChecks(moving, task)).toEqual([
    expect.objectContaining({
      ...{ name: 'roles', detail: 'Roles of the source that the destination lacks: reporter.' },
      remedy: 'Create them there: CREATE ROLE "reporter".',
    }),
  ]);
  await serving.query('app', 'DROP OWNED BY reporter; DROP ROLE reporter');
}

/** Copies every row as some other tool would. */
async function copyByOtherMeans(source: Cluster, destination: Cluster): Promise<void> {
  const tables = await source.query<{ name: string }>(
    'app',
    `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname = 'public'`,
  );
  for (const { name } of tables) {
    const [copy] = await source.query<{ rows: string }>(
      'app',
      `SELECT coalesce(json_agg(t), '[]')::text AS rows FROM ${name} t`,
    );
    await destination.query(
      'app',
      `INSERT INTO ${name} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::${name}, $1)`,
      [copy?.rows],
    );
  }
}

it('SCHEMA_SYNC, a copy by other means, REPLICATE and CUTOVER move as RESHARD does', { timeout: 240_000 }, async () => {
  const moving = await Moving.start({ source: 17, destination: 18 });
  onTestFinished(() => moving.stop());
  const { system } = moving;
  const { source, destination } = system;
  await source.query(
    'app',
    'CREATE MATERIALIZED VIEW public.counted AS SELECT count(*)::int AS n FROM public.documents',
  );
  const whole = await made(source);

  const sync = async (part: 'PRE' | 'POST'): Promise<void> => {
    const [task] = await system.admin<{ task_id: string }>(`SCHEMA_SYNC ${part} prod prod_new ${PUBLICATION}`);
    await system.task(`${part} is there`, (t) => t.id === task?.task_id && t.status === 'finished');
  };
  await sync('PRE');
  expect(await made(destination)).toEqual({ ...whole, otherIndexes: 0 });
  await copyByOtherMeans(source, destination);
  await sync('POST');
  expect(await made(destination)).toEqual(whole);
  await sync('POST');
  expect(await made(destination)).toEqual(whole);

  // Begun at a slot that is older than the engine's publication, the streams would lack what was written since.
  const [refused] = await system.admin<{ task_id: string }>(`REPLICATE prod prod_new ${PUBLICATION} my_slot`);
  const failed = await system.task(
    'a slot is refused',
    (t) => t.id === refused?.task_id && t.status.startsWith('failed'),
  );
  expect(failed.status).toContain('cannot begin at the slot "my_slot"');
  expect(await source.query('app', 'SELECT FROM pg_replication_slots')).toEqual([]);

  const [streams] = await system.admin<{ task_id: string }>(`REPLICATE prod prod_new ${PUBLICATION}`);
  const replicating = await system.task(
    'the streams run',
    (t) => t.type === 'replication prod -> prod_new' && t.inner_status === 'replicating',
  );
  expect(replicating.id).toBe(streams?.task_id);
  await moving.load();
  expect(await moving.servingMajor()).toBe(17);
  // What replication does not carry is computed before the switch, however long after the copy it comes.
  const [before] = await source.query<{ n: number }>(
    'app',
    `INSERT INTO public.documents (body) VALUES ('late'), ('later') RETURNING (SELECT count(*)::int + 2 FROM public.documents) AS n`,
  );
  await moving.cutoverByOperator(streams?.task_id ?? '');
  expect(await moving.servingMajor()).toBe(18);
  const [after] = await destination.query<{ n: number }>('app', 'SELECT n FROM public.counted');
  expect(after?.n).toBeGreaterThanOrEqual(before?.n ?? Infinity);
  expect(
    await destination.query(
      'app',
      `SELECT FROM pg_stats WHERE schemaname = 'public' AND tablename = 'history' LIMIT 1`,
    ),
  ).toHaveLength(1);
  await moving.writes();
  await moving.cutoverByOperator(await moving.streamsTask());
  expect(await moving.servingMajor()).toBe(17);
  await moving.writes();
  await moving.expectNothingLost();
});

it('COPY_DATA moves nothing by itself; CUTOVER does', { timeout: 240_000 }, async () => {
  const moving = await Moving.start({ source: 17, destination: 18 });
  onTestFinished(() => moving.stop());
  const { system } = moving;
  await moving.load();
  const task = await moving.copyData();
  const slots = await system.admin<{ name: string }>('SHOW REPLICATION_SLOTS');
  expect(slots.map(({ name }) => name).filter((name) => name.endsWith('_forward'))).toHaveLength(1);
  await moving.writes();
  expect(await moving.servingMajor()).toBe(17);
  expect(await moving.cutovers()).toEqual([]);
  expect(await failedChecks(moving, task)).toEqual([]);
  await expectMissingRoleNamed(moving, system.source, task);
  expect(await moving.cutovers()).toEqual([]);

  await moving.cutoverByOperator(task);
  expect(await moving.servingMajor()).toBe(18);
  await moving.writes();
  const back = await moving.streamsTask();
  expect(await failedChecks(moving, back)).toEqual([]);
  await expectMissingRoleNamed(moving, system.destination, back);
  expect(await moving.cutovers()).toHaveLength(1);
  await moving.cutoverByOperator(back);
  expect(await moving.servingMajor()).toBe(17);
  await moving.writes();
  await moving.expectNothingLost();

  // Given up after the rollback: nothing of the move is left on either side, and the source serves as before.
  await system.admin(`STOP_TASK ${task}`);
  await system.task('the copy is given up', (t) => t.id === task && t.status === 'cancelled: stopped by an operator');
  for (const cluster of [system.source, system.destination]) {
    expect(await cluster.query('app', 'SELECT slot_name FROM pg_replication_slots')).toEqual([]);
    expect(await cluster.query('app', 'SELECT subname FROM pg_subscription')).toEqual([]);
    expect(await cluster.query('app', `SELECT tgname FROM pg_trigger WHERE tgname ~ 'cutover'`)).toEqual([]);
    expect(await cluster.query('app', 'SELECT evtname FROM pg_event_trigger')).toEqual([]);
  }
  await system.source.query('app', `INSERT INTO public.documents (body) VALUES ('after the end')`);
  expect((await made(system.destination)).tables).toBe(0);
});
