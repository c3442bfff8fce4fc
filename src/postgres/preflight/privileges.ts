/**
 * One task: the check that the schema_admin of each side may do what a move does there, naming each grant that is missing.
 *
 * A superuser may do everything. What the others need is listed in docs/requirements.md; the two must say the same.
 */
import { quoteIdentifier } from '../connection.js';
import {
  bothSides,
  combined,
  failed,
  ok,
  rowOf,
  rowsOf,
  tableParameters,
  tablesToMove,
  TABLES_TO_MOVE,
} from './check.js';
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

const PREDEFINED_SINCE = 160_000;

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
        ...(await missingOwnership(context, side.role, rights)),
        ...(side.role === 'destination' ? await missingOnPublic(context, rights) : []),
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

/** The fence and the publication need each table's owner; at the destination the tables are given to these owners. */
async function missingOwnership(
  context: PreflightContext,
  role: 'source' | 'destination',
  rights: Rights,
): Promise<readonly Missing[]> {
  const owners = await rowsOf<{ owner: string }>(
    context.source,
    `SELECT DISTINCT pg_get_userbyid(c.relowner) AS owner FROM ${TABLES_TO_MOVE} ORDER BY 1`,
    tableParameters(await tablesToMove(context)),
  );
  const missing = await notMemberOf(
    context[role],
    owners.map((row) => row.owner),
  );
  return missing.map((owner) => ({
    what: `membership in ${owner}, which owns tables`,
    grant: `GRANT ${quoteIdentifier(owner)} TO ${rights.role}`,
  }));
}

/** The schema `public` of the source: whose it is, and whether it is otherwise than initdb of PostgreSQL 15 makes it. */
const PUBLIC = `
  SELECT pg_get_userbyid(n.nspowner) AS owner, pg_get_userbyid(n.nspowner) <> 'pg_database_owner' OR n.nspacl IS DISTINCT FROM
      (SELECT p.initprivs FROM pg_init_privs p WHERE p.classoid = 'pg_namespace'::regclass AND p.objoid = n.oid) AS changed
  FROM pg_namespace n WHERE n.nspname = 'public'`;
const OWNS_PUBLIC = `SELECT pg_has_role(nspowner, 'USAGE') AS owns FROM pg_namespace WHERE nspname = 'public'`;

/**
 * Every database has `public`, so it is not made by its owner but changed. Before 15 it belongs to the bootstrap superuser and
 * everybody may create in it (PostgreSQL documentation, release notes of 15), which an upgrade keeps. Who does not own it
 * gets a mere warning for a GRANT on it, and the application no right.
 */
async function missingOnPublic(context: PreflightContext, rights: Rights): Promise<readonly Missing[]> {
  const [there] = await rowsOf<{ owner: string; changed: boolean }>(context.source, PUBLIC);
  if (there?.changed !== true) return [];
  const { role } = rights;
  const missing: Missing[] = [];
  const [here] = await rowsOf<{ owns: boolean }>(context.destination, OWNS_PUBLIC);
  if (here?.owns === false)
    missing.push({
      what: 'ownership of the schema "public", whose owner or privileges are not the default on the source',
      grant: `ALTER SCHEMA public OWNER TO ${role}`,
    });
  if (there.owner !== 'pg_database_owner' && (await notMemberOf(context.destination, [there.owner])).length > 0)
    missing.push({
      what: `membership in ${there.owner}, which owns the schema "public" of the source and may be changed there`,
      grant: `GRANT ${quoteIdentifier(there.owner)} TO ${role}`,
    });
  return missing;
}

/** A role that does not exist is another check's finding. */
async function notMemberOf(side: PreflightSide, owners: readonly string[]): Promise<readonly string[]> {
  const rows = await rowsOf<{ name: string }>(
    side,
    `SELECT rolname AS name FROM pg_roles WHERE rolname = ANY ($1) AND NOT pg_has_role(oid, 'MEMBER') ORDER BY 1`,
    [owners],
  );
  return rows.map((row) => row.name);
}
