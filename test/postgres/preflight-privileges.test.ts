/** One task: see that the grants preflight names are those that a role needs, by giving them to one that has none. */
import { afterEach, describe, expect, it } from 'vitest';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { connect } from '../../src/postgres/connection.js';
import { dumpSchema } from '../../src/postgres/dump/dump.js';
import { CHECKS, preflight, runCheck } from '../../src/postgres/preflight/preflight.js';
import { applySchema, splitSchema } from '../../src/postgres/schema.js';
import { installRecord } from '../../src/postgres/record.js';
import { armFence, applicationTables } from '../../src/postgres/fence.js';
import {
  ensurePublication,
  ensureReplicationRole,
  ensureSlot,
  ensureSubscription,
} from '../../src/postgres/streams.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { sidesOf, type Sides } from './preflight-setup.js';

const clusters = useClusters({
  old: { major: 15, auth: 'scram' },
  source: { major: 17, auth: 'scram' },
  destination: { major: 18, auth: 'scram' },
});
const PASSWORD = 'mover-password';
const open: Sides[] = [];
afterEach(async () => {
  for (const one of open.splice(0)) await one.end();
});

let counter = 0;

/** Two sides whose schema_admin is a plain role, with a table of another role on the source. */
async function plainSides(source: Cluster): Promise<Sides & { readonly mover: string }> {
  counter += 1;
  const [mover, owner] = [`mover_${counter.toString()}`, `owner_${counter.toString()}`];
  for (const cluster of [source, clusters.destination])
    await cluster.query('postgres', `CREATE ROLE ${mover} LOGIN PASSWORD '${PASSWORD}'; CREATE ROLE ${owner}`);
  const from = await freshDatabase(source);
  await source.query(
    from,
    `CREATE SCHEMA app AUTHORIZATION ${owner}; CREATE TABLE app.item (id int PRIMARY KEY, v text);
    ALTER TABLE app.item OWNER TO ${owner}; INSERT INTO app.item VALUES (1, 'x')`,
  );
  const to = await freshDatabase(clusters.destination);
  const both = await sidesOf(source, clusters.destination, { user: mover, password: PASSWORD, databases: [from, to] });
  open.push(both);
  return { ...both, mover };
}

async function found(id: string, both: Sides): Promise<{ verdict: string; detail: string; remedy: string }> {
  const check = CHECKS.find((c) => c.id === id);
  if (!check) throw new Error(`there is a check ${id}`);
  return runCheck(check, both);
}

const privileges = (both: Sides): ReturnType<typeof found> => found('privileges', both);

/** The statements of the remedy for one side. */
function statementsFor(role: 'source' | 'destination', remedy: string): string {
  return new RegExp(`On the ${role}: (.*?;)(?= On the|$)`).exec(remedy)?.[1] ?? '';
}

describe('a schema_admin without superuser', () => {
  it('is told every grant it lacks, and they suffice for a move from 17 to 18', async () => {
    const both = await plainSides(clusters.source);
    const before = await privileges(both);
    expect(before).toMatchObject({
      verdict: 'failed',
      detail: expect.stringContaining('lacks: REPLICATION') as string,
    });
    await both.onSource(statementsFor('source', before.remedy));
    await both.onDestination(statementsFor('destination', before.remedy));
    expect(await privileges(both)).toMatchObject({ verdict: 'ok' });
    const results = await preflight(both);
    // What no grant gives is said, and refuses nothing.
    expect(results.filter((r) => r.verdict !== 'ok')).toMatchObject([{ id: 'new-tables', verdict: 'warning' }]);
    await moveWith(both);
  });

  it('is told what the schema public of a database from before 15 needs, and it suffices', async () => {
    const both = await plainSides(clusters.source);
    await both.onSource('ALTER SCHEMA public OWNER TO postgres; GRANT CREATE ON SCHEMA public TO PUBLIC');
    const { remedy } = await privileges(both);
    await both.onSource(statementsFor('source', remedy));
    await both.onDestination(statementsFor('destination', remedy));
    expect(await privileges(both)).toMatchObject({ verdict: 'ok' });
    await makeSchema(both);
    const rights = `SELECT pg_get_userbyid(nspowner) AS owner, (
      SELECT string_agg(privilege_type, ', ' ORDER BY privilege_type) FROM aclexplode(nspacl) WHERE grantee = 0) AS everybody
      FROM pg_namespace WHERE nspname = 'public'`;
    const { rows } = await both.destination.connection.query(rights);
    expect(rows).toEqual([{ owner: 'postgres', everybody: 'CREATE, USAGE' }]);
  });

  it('is told that a membership whose privileges it does not inherit is none, and how to make it one', async () => {
    const both = await plainSides(clusters.source);
    const owner = both.mover.replace('mover', 'owner');
    const { remedy } = await privileges(both);
    for (const side of ['source', 'destination'] as const) {
      const run = side === 'source' ? both.onSource : both.onDestination;
      await run(statementsFor(side, remedy));
      await run(`GRANT ${owner} TO ${both.mover} WITH INHERIT FALSE`);
    }
    const after = await privileges(both);
    expect(after).toMatchObject({ verdict: 'failed' });
    expect(after.detail.match(new RegExp(`lacks: membership in ${owner}`, 'g'))).toHaveLength(2);
    await both.onSource(statementsFor('source', after.remedy));
    await both.onDestination(statementsFor('destination', after.remedy));
    expect(await privileges(both)).toMatchObject({ verdict: 'ok' });
  });

  it('is told of owners who could be given nothing at the destination, and of those of what is no table', async () => {
    const both = await plainSides(clusters.source);
    const owner = both.mover.replace('mover', 'owner');
    await both.onSource(`CREATE ROLE coder_${both.mover}; CREATE SCHEMA code; CREATE TABLE public.p (id int PRIMARY KEY);
      ALTER TABLE public.p OWNER TO ${owner}; CREATE FUNCTION code.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
      ALTER FUNCTION code.f() OWNER TO coder_${both.mover}; ALTER SCHEMA code OWNER TO ${owner}`);
    await both.onDestination(`CREATE ROLE coder_${both.mover}`);
    const { remedy } = await privileges(both);
    const source = statementsFor('source', remedy);
    expect(source).toContain(`GRANT CREATE ON SCHEMA "code" TO "coder_${both.mover}"`);
    expect(source).not.toContain('public');
    const destination = statementsFor('destination', remedy);
    for (const grant of [
      `GRANT "coder_${both.mover}" TO ${both.mover} WITH INHERIT TRUE, SET TRUE`,
      `GRANT CREATE ON SCHEMA "public" TO "${owner}"`,
      `GRANT CREATE ON SCHEMA "public" TO "${both.mover}"`,
    ])
      expect(destination).toContain(grant);
    await both.onSource(source);
    await both.onDestination(destination);
    expect(await privileges(both)).toMatchObject({ verdict: 'ok' });
    await makeSchema(both);
  });

  it('is told of a sequence it may not read and set, on whichever side it is', async () => {
    const both = await plainSides(clusters.source);
    await both.onSource('CREATE SEQUENCE public.hidden; CREATE SEQUENCE public.seen');
    await both.onSource(`GRANT SELECT, UPDATE ON SEQUENCE public.seen TO ${both.mover}`);
    const withheld = await found('identity-columns', both);
    expect(withheld).toMatchObject({
      verdict: 'failed',
      detail: expect.stringMatching(/of the source .*: public\.hidden\.$/) as string,
    });
    await both.onSource(statementsFor('source', withheld.remedy));
    expect(await found('identity-columns', both)).toMatchObject({ verdict: 'ok' });
    await both.onDestination('CREATE SEQUENCE public.there');
    expect(await found('identity-columns', both)).toMatchObject({
      detail: expect.stringContaining('of the destination') as string,
    });
  });

  it('is told by preflight that nobody refuses a table made on the side that has moved away, of each side where it is so', async () => {
    const both = await plainSides(clusters.source);
    const said = (sides: string): object => ({
      verdict: 'warning',
      detail: expect.stringMatching(new RegExp(`^The schema_admin of the ${sides} is no superuser`)) as string,
      remedy: expect.stringContaining('Have nobody make tables past the proxy') as string,
    });
    expect(await found('new-tables', both)).toMatchObject(said('source and of the destination'));
    await both.onSource(`ALTER ROLE ${both.mover} SUPERUSER`);
    expect(await found('new-tables', both)).toMatchObject(said('destination'));
    await both.onDestination(`ALTER ROLE ${both.mover} SUPERUSER`);
    expect(await found('new-tables', both)).toMatchObject({ verdict: 'ok' });
  });

  it.each(['source', 'destination'] as const)(
    'is told of the function that proves parity where it may not call it, on the %s, and the statement that is shown suffices',
    async (role) => {
      const both = await plainSides(clusters.source);
      const { remedy } = await privileges(both);
      await both.onSource(statementsFor('source', remedy));
      await both.onDestination(statementsFor('destination', remedy));
      const run = role === 'source' ? both.onSource : both.onDestination;
      const call = `SELECT pg_replication_origin_progress('none', false)`;
      const grant = `GRANT EXECUTE ON FUNCTION pg_replication_origin_progress(text, boolean) TO ${both.mover}`;
      await run(`REVOKE ${grant.slice('GRANT '.length).replace(' TO ', ' FROM ')}`);
      await expect(both[role].connection.query(call)).rejects.toMatchObject({ code: '42501' });
      expect(await privileges(both)).toMatchObject({
        verdict: 'failed',
        detail: `The schema_admin ${both.mover} of the ${role} lacks: EXECUTE on pg_replication_origin_progress, which proves parity.`,
        remedy: `On the ${role}: ${grant};`,
      });
      await run(grant);
      await expect(both[role].connection.query(call)).rejects.toMatchObject({ code: '42704' });
      expect(await privileges(both)).toMatchObject({ verdict: 'ok' });
    },
  );

  it('is told that 15 has no way for it to stream back', async () => {
    const both = await plainSides(clusters.old);
    expect(await privileges(both)).toMatchObject({
      verdict: 'failed',
      remedy: expect.stringMatching(/source: .*SUPERUSER \(before 16 nobody else may\)/) as string,
    });
  });
});

/** The parts of a move that need privileges, in the order of a move. */
async function moveWith(both: Sides): Promise<void> {
  const { source, destination } = both;
  await makeSchema(both);
  await installRecord(source.connection, 'open');
  await installRecord(destination.connection, 'closed');
  const tables = await applicationTables(source.connection);
  await ensurePublication(source.connection, 'cutover_m1_forward', tables);
  await ensureSlot(source.connection, 'cutover_m1_forward');
  const publisher = await ensureReplicationRole(source.connection, source.endpoint, 'm1', tables);
  await ensureSubscription(destination.connection, 'cutover_m1_forward', publisher, {
    copyData: true,
    binary: true,
    originNone: true,
  });
  await armFence(source.connection, tables, 'always');
  await armFence(destination.connection, tables, 'origin');
  const watcher = await connect(destination.endpoint);
  try {
    await expect
      .poll(async () => (await watcher.query<{ v: string }>('SELECT v FROM app.item')).rows, { timeout: 15_000 })
      .toEqual([{ v: 'x' }]);
  } finally {
    await watcher.end();
    await destination.connection.query('ALTER SUBSCRIPTION cutover_m1_forward DISABLE');
    await destination.connection.query('ALTER SUBSCRIPTION cutover_m1_forward SET (slot_name = NONE)');
    await destination.connection.query('DROP SUBSCRIPTION cutover_m1_forward');
  }
}

async function makeSchema({ source, destination }: Sides): Promise<void> {
  const parts = await splitSchema(await dumpSchema(source.endpoint), { destinationVersion: 180000 });
  await applySchema(destination.connection, [...parts.pre, ...parts.primaryKeys], { ignoreExisting: false });
}
