/**
 * One task: the check that the schema_admin of each side may do what a move does there, naming each grant that is missing.
 *
 * A superuser may do everything. What the others need is listed in docs/requirements.md; the two must say the same.
 */
import { quoteIdentifier } from '../connection.js';
import { applicationTables } from '../fence.js';
import { bothSides, combined, failed, ok, rowOf, rowsOf } from './check.js';
import type { Finding, PreflightCheck, PreflightContext, PreflightSide } from './check.js';

/** What the role of a connection may do. */
interface Rights {
  readonly role: string;
  readonly database: string;
  readonly superuser: boolean;
  readonly version: number;
  readonly replication: boolean;
  readonly createRole: boolean;
  readonly createInDatabase: boolean;
  readonly originProgress: boolean;
  readonly monitor: boolean;
  readonly signal: boolean;
  /** PostgreSQL 16 and newer */
  readonly createSubscription: boolean;
}

/** What PostgreSQL 16 brought: pg_create_subscription, CREATEROLE that may give REPLICATION, memberships WITH INHERIT and SET. */
const PREDEFINED_SINCE = 160_000;

type Sided = PreflightSide & { readonly role: 'source' | 'destination' };

/** Not of an extension, whose objects come with it, and not ours. */
const OF_APPLICATION = (catalogue: string, schema: string): string => `o.oid >= 16384
  AND ${schema} NOT IN (SELECT oid FROM pg_namespace WHERE nspname = 'cutover' OR nspname LIKE 'pg\\_%')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '${catalogue}'::regclass AND d.objid = o.oid AND d.deptype = 'e')`;
const TABLE_OWNERS = `
  SELECT DISTINCT pg_get_userbyid(o.relowner) AS owner FROM pg_class o
  WHERE o.relkind IN ('r', 'p') AND o.relpersistence <> 't' AND ${OF_APPLICATION('pg_class', 'o.relnamespace')} ORDER BY 1`;
const OWNERS_IN_SCHEMAS = `
  SELECT DISTINCT n.nspname AS schema, pg_get_userbyid(x.owner) AS owner FROM (
    SELECT o.relnamespace AS schema, o.relowner AS owner FROM pg_class o
      WHERE o.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND o.relpersistence <> 't' AND ${OF_APPLICATION('pg_class', 'o.relnamespace')}
    UNION SELECT o.pronamespace, o.proowner FROM pg_proc o WHERE ${OF_APPLICATION('pg_proc', 'o.pronamespace')}
    UNION SELECT o.typnamespace, o.typowner FROM pg_type o WHERE ${OF_APPLICATION('pg_type', 'o.typnamespace')}
  ) AS x JOIN pg_namespace n ON n.oid = x.schema`;
/**
 * pg_shdepend knows the owner of every kind of object, but not the bootstrap superuser (PostgreSQL documentation, 52.49). Publications,
 * subscriptions and extensions are made without an owner of their own.
 */
const OBJECT_OWNERS = `
  SELECT owner FROM (${OWNERS_IN_SCHEMAS}) AS x
  UNION SELECT pg_get_userbyid(o.nspowner) FROM pg_namespace o WHERE ${OF_APPLICATION('pg_namespace', 'o.oid')}
  UNION SELECT pg_get_userbyid(s.refobjid) FROM pg_shdepend s
    WHERE s.deptype = 'o' AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND s.classid NOT IN ('pg_publication'::regclass, 'pg_extension'::regclass, 'pg_event_trigger'::regclass, 'pg_class'::regclass,
        'pg_proc'::regclass, 'pg_type'::regclass, 'pg_namespace'::regclass)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = s.classid AND d.objid = s.objid AND d.deptype = 'e')
  ORDER BY 1`;

const RIGHTS = `
  SELECT quote_ident(current_user) AS role, quote_ident(current_database()) AS database, rolsuper AS superuser, current_setting('server_version_num')::int AS version,
    rolreplication AS replication, rolcreaterole AS "createRole",
    has_database_privilege(current_database(), 'CREATE') AS "createInDatabase",
    has_function_privilege('pg_replication_origin_progress(text, boolean)', 'EXECUTE') AS "originProgress",
    pg_has_role('pg_monitor', 'USAGE') AS monitor,
    pg_has_role('pg_signal_backend', 'USAGE') AS signal,
    coalesce((SELECT pg_has_role(p.oid, 'USAGE') FROM pg_roles p WHERE p.rolname = 'pg_create_subscription'), false)
      AS "createSubscription"
  FROM pg_roles WHERE rolname = current_user`;

export const privileges: PreflightCheck = {
  id: 'privileges',
  title: 'Privileges of the schema_admin',
  async run(context) {
    const findings: Finding[] = [];
    for (const side of bothSides(context)) {
      const rights = await rowOf<Rights>(side, RIGHTS);
      if (rights.superuser) continue;
      const missing = [
        ...missingRights(rights),
        ...(await missingOwnership(context, side, rights)),
        ...(await missingInSchemas(context, side, rights)),
      ];
      if (missing.length === 0) continue;
      findings.push(
        failed(
          `The schema_admin ${rights.role} of the ${side.role} lacks: ${missing.map((m) => m.what).join('; ')}.`,
          `On the ${side.role}: ${missing.map((m) => m.grant).join('; ')};`,
        ),
      );
    }
    return findings.length > 0 ? combined(findings) : ok('They suffice on both sides.');
  },
};

interface Missing {
  readonly what: string;
  /** the statement that gives it */
  readonly grant: string;
}

function missingRights(rights: Rights): readonly Missing[] {
  const { role, database } = rights;
  const needed: readonly (Missing & { readonly has: boolean })[] = [
    {
      has: rights.replication,
      what: 'REPLICATION, to make slots and the role the other side connects with',
      grant: `ALTER ROLE ${role} REPLICATION`,
    },
    {
      // Before 16 only a superuser may give REPLICATION to a role it makes (PostgreSQL documentation, CREATE ROLE).
      has: rights.createRole && rights.version >= PREDEFINED_SINCE,
      what: 'the right to create the role the other side connects with',
      grant: rights.version >= PREDEFINED_SINCE ? `ALTER ROLE ${role} CREATEROLE` : `ALTER ROLE ${role} SUPERUSER`,
    },
    {
      has: rights.createInDatabase,
      what: 'CREATE on the database, for publications and the schema "cutover"',
      grant: `GRANT CREATE ON DATABASE ${database} TO ${role}`,
    },
    {
      has: rights.createSubscription,
      what: 'the right to create subscriptions',
      grant:
        rights.version >= PREDEFINED_SINCE
          ? `GRANT pg_create_subscription TO ${role}`
          : `ALTER ROLE ${role} SUPERUSER (before 16 nobody else may)`,
    },
    {
      has: rights.originProgress,
      what: 'EXECUTE on pg_replication_origin_progress, which proves parity',
      grant: `GRANT EXECUTE ON FUNCTION pg_replication_origin_progress(text, boolean) TO ${role}`,
    },
    { has: rights.monitor, what: 'pg_monitor, to see lag and who holds locks', grant: `GRANT pg_monitor TO ${role}` },
    { has: rights.signal, what: 'pg_signal_backend, to free a slot', grant: `GRANT pg_signal_backend TO ${role}` },
  ];
  return needed.filter((right) => !right.has);
}

/**
 * The fence and the publication need each table's owner, and pg_dump locks every table. At the destination what the schema holds is made
 * and then given to its owner, unless it is there already.
 */
async function missingOwnership(context: PreflightContext, side: Sided, rights: Rights): Promise<readonly Missing[]> {
  const makesSchema = side.role === 'destination' && (await applicationTables(side.connection)).length === 0;
  const owners = await rowsOf<{ owner: string }>(context.source, makesSchema ? OBJECT_OWNERS : TABLE_OWNERS);
  const missing = await withoutMembership(
    side,
    owners.map((row) => row.owner),
    rights,
  );
  return missing.map((owner) => ({
    what: `membership in ${owner}, which owns ${makesSchema ? 'what moves' : 'tables'}, with INHERIT and SET`,
    grant: membership(owner, rights),
  }));
}

/** The schema `public` of the source: whose it is, and whether it is otherwise than initdb of PostgreSQL 15 makes it. */
const PUBLIC = `
  SELECT pg_get_userbyid(n.nspowner) AS owner, pg_get_userbyid(n.nspowner) <> 'pg_database_owner' OR n.nspacl IS DISTINCT FROM
      (SELECT p.initprivs FROM pg_init_privs p WHERE p.classoid = 'pg_namespace'::regclass AND p.objoid = n.oid) AS changed
  FROM pg_namespace n WHERE n.nspname = 'public'`;
const OWNS_PUBLIC = `SELECT pg_has_role(nspowner, 'USAGE') AS owns FROM pg_namespace WHERE nspname = 'public'`;

/**
 * Who owns something must be allowed to create it where it is: PostgreSQL asks for that when it is given to him (PostgreSQL
 * documentation, ALTER TABLE, OWNER TO). A schema comes with the privileges of the source; only `public` is there before.
 */
async function missingInSchemas(context: PreflightContext, side: Sided, rights: Rights): Promise<readonly Missing[]> {
  const [there] = await rowsOf<{ owner: string; changed: boolean }>(context.source, PUBLIC);
  const publicMoves = there?.changed === true;
  if (side.role === 'destination')
    return publicMoves
      ? missingOnPublic(context, there.owner, rights)
      : missingCreate(side, (await ownersIn(context, true)).filter(inPublic), rights);
  return missingCreate(
    side,
    (await ownersIn(context, false)).filter((row) => publicMoves || !inPublic(row)),
    rights,
  );
}

interface OwnerIn {
  readonly schema: string;
  readonly owner: string;
}

const inPublic = (row: OwnerIn): boolean => row.schema === 'public';

/** The owners of relations and functions, by the schema these lie in; with `admin` the role that makes them, too. */
async function ownersIn(context: PreflightContext, admin: boolean): Promise<readonly OwnerIn[]> {
  const rows = await rowsOf<OwnerIn>(context.source, OWNERS_IN_SCHEMAS);
  if (!admin) return rows;
  const user = context.destination.connection.user ?? '';
  return [...rows, ...[...new Set(rows.map((row) => row.schema))].map((schema) => ({ schema, owner: user }))];
}

/** A role or schema that does not exist is another check's finding. */
async function missingCreate(side: Sided, owners: readonly OwnerIn[], rights: Rights): Promise<readonly Missing[]> {
  const rows = await rowsOf<OwnerIn>(
    side,
    `SELECT DISTINCT n.nspname AS schema, r.rolname AS owner FROM unnest($1::text[], $2::text[]) AS t (schema, owner)
     JOIN pg_namespace n ON n.nspname = t.schema JOIN pg_roles r ON r.rolname = t.owner
     WHERE NOT has_schema_privilege(r.oid, n.oid, 'CREATE') ORDER BY 1, 2`,
    [owners.map((row) => row.schema), owners.map((row) => row.owner)],
  );
  return rows.map(({ schema, owner }) => ({
    what: `CREATE on the schema ${schema} for ${owner === side.connection.user ? rights.role : owner}, whose objects lie there`,
    grant: `GRANT CREATE ON SCHEMA ${quoteIdentifier(schema)} TO ${quoteIdentifier(owner)}`,
  }));
}

/**
 * Every database has `public`, so it is not made by its owner but changed. Before 15 it belongs to the bootstrap superuser and
 * everybody may create in it (PostgreSQL documentation, release notes of 15), which an upgrade keeps. Who does not own it
 * gets a mere warning for a GRANT on it, and the application no right.
 */
async function missingOnPublic(context: PreflightContext, owner: string, rights: Rights): Promise<readonly Missing[]> {
  const missing: Missing[] = [];
  const [here] = await rowsOf<{ owns: boolean }>(context.destination, OWNS_PUBLIC);
  if (here?.owns === false)
    missing.push({
      what: 'ownership of the schema "public", whose owner or privileges are not the default on the source',
      grant: `ALTER SCHEMA public OWNER TO ${rights.role}`,
    });
  if (owner !== 'pg_database_owner' && (await withoutMembership(context.destination, [owner], rights)).length > 0)
    missing.push({
      what: `membership in ${owner}, which owns the schema "public" of the source and may be changed there`,
      grant: membership(owner, rights),
    });
  return missing;
}

/** Mere membership is not enough: privileges that are not inherited, or a role that cannot be set, make nothing and give nothing away. */
async function withoutMembership(
  side: PreflightSide,
  owners: readonly string[],
  { version }: Rights,
): Promise<readonly string[]> {
  const rows = await rowsOf<{ name: string }>(
    side,
    `SELECT rolname AS name FROM pg_roles WHERE rolname = ANY ($1)
       AND NOT (pg_has_role(oid, 'USAGE')${version >= PREDEFINED_SINCE ? ` AND pg_has_role(oid, 'SET')` : ''}) ORDER BY 1`,
    [owners],
  );
  return rows.map((row) => row.name);
}

/** The options are said, because a grant that is there already keeps those it has (PostgreSQL documentation, GRANT). */
function membership(owner: string, { role, version }: Rights): string {
  const options = version >= PREDEFINED_SINCE ? ' WITH INHERIT TRUE, SET TRUE' : '';
  return `GRANT ${quoteIdentifier(owner)} TO ${role}${options}`;
}
