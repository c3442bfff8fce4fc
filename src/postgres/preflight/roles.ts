/** One task: the checks on what lies outside the database's own schema: extensions, roles, users, their settings. */
import type { UserEntry } from '../../config/config.js';
import { messageOf } from '../../errors/errors.js';
import { withConnection } from '../connection.js';
import { addressOf, endpointFor, type Endpoint } from '../endpoint.js';
import { combined, failed, listed, ok, rowOf, rowsOf, warning } from './check.js';
import type { Finding, PreflightCheck, PreflightContext, PreflightSide } from './check.js';

interface ExtensionRow {
  readonly name: string;
  readonly version: string;
  readonly configured: boolean;
}

interface OfferRow {
  readonly name: string;
  readonly versions: readonly string[];
  readonly installed: boolean;
  /** the destination's schema_admin may create it */
  readonly creatable: boolean;
}

const EXTENSIONS = `SELECT extname AS name, extversion AS version, extconfig IS NOT NULL AS configured
  FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1`;
const OFFERS = `
  SELECT v.name, array_agg(v.version) AS versions, bool_or(v.installed) AS installed,
    bool_or(NOT v.superuser OR current_setting('is_superuser') = 'on'
      OR (v.trusted AND has_database_privilege(current_database(), 'CREATE'))) AS creatable
  FROM pg_available_extension_versions v WHERE v.name = ANY ($1) GROUP BY v.name`;

export const extensions: PreflightCheck = {
  id: 'extensions',
  title: 'Extensions are to be had at the destination',
  async run({ source, destination }) {
    const needed = await rowsOf<ExtensionRow>(source, EXTENSIONS);
    const offers = new Map(
      (await rowsOf<OfferRow>(destination, OFFERS, [needed.map((e) => e.name)])).map((offer) => [offer.name, offer]),
    );
    const findings = needed.flatMap((extension) => extensionFindings(extension, offers.get(extension.name)));
    return findings.length > 0 ? combined(findings) : ok(`All ${needed.length.toString()} are.`);
  },
};

function extensionFindings(extension: ExtensionRow, offer: OfferRow | undefined): readonly Finding[] {
  const { name, version } = extension;
  if (!offer)
    return [failed(`The destination's server has no extension ${name}.`, `Install the package of ${name} there.`)];
  const findings: Finding[] = [];
  if (!offer.installed && !offer.creatable)
    findings.push(
      failed(
        `The destination's schema_admin may not create the extension ${name}.`,
        `Have a superuser run CREATE EXTENSION ${name} in the destination.`,
      ),
    );
  if (!offer.versions.includes(version))
    findings.push(
      warning(
        `${name} is ${version} on the source, and the destination has ${listed(offer.versions)} only.`,
        `See what changed between these versions of ${name}.`,
      ),
    );
  if (extension.configured)
    findings.push(
      warning(
        `${name} keeps rows of the application in tables of its own, and these do not move.`,
        `Carry the configuration of ${name} over yourself.`,
      ),
    );
  return findings;
}

/**
 * Roles that own something in this database or have a privilege on it. The bootstrap superuser is not in pg_shdepend
 * (PostgreSQL documentation, 52.49), so owners are asked for as well.
 */
const NEEDED_ROLES = `
  WITH here AS (SELECT oid FROM pg_database WHERE datname = current_database()), used AS (
    SELECT d.refobjid AS role FROM pg_shdepend d, here WHERE d.refclassid = 'pg_authid'::regclass AND d.dbid = here.oid
    UNION SELECT relowner FROM pg_class WHERE oid >= 16384
    UNION SELECT nspowner FROM pg_namespace WHERE oid >= 16384 OR nspname = 'public'
    UNION SELECT proowner FROM pg_proc WHERE oid >= 16384
  )
  SELECT r.rolname AS name, r.rolcanlogin AS login, r.rolbypassrls OR r.rolsuper AS bypass
  FROM used JOIN pg_roles r ON r.oid = used.role
  WHERE r.rolname !~ '^pg_' AND r.rolname !~ '^cutover_.*_replication$' ORDER BY 1`;

interface RoleRow {
  readonly name: string;
  readonly login: boolean;
  /** sees every row whatever the row security says */
  readonly bypass: boolean;
}

export const roles: PreflightCheck = {
  id: 'roles',
  title: 'Owners and grantees exist at the destination',
  async run({ source, destination }) {
    const needed = await rowsOf<RoleRow>(source, NEEDED_ROLES);
    const there = new Map(
      (
        await rowsOf<RoleRow>(
          destination,
          `SELECT rolname AS name, rolcanlogin AS login, rolbypassrls OR rolsuper AS bypass FROM pg_roles WHERE rolname = ANY ($1)`,
          [needed.map((role) => role.name)],
        )
      ).map((role) => [role.name, role]),
    );
    const missing = needed.filter((role) => !there.has(role.name)).map((role) => role.name);
    const other = needed.filter((role) => {
      const peer = there.get(role.name);
      return peer !== undefined && (peer.login !== role.login || peer.bypass !== role.bypass);
    });
    const findings: Finding[] = [];
    if (missing.length > 0)
      findings.push(
        failed(
          `Roles of the source that the destination lacks: ${listed(missing)}.`,
          `Create them there: ${listed(missing.map((name) => `CREATE ROLE ${JSON.stringify(name)}`))}.`,
        ),
      );
    if (other.length > 0)
      findings.push(
        warning(
          `Roles with other attributes (LOGIN, BYPASSRLS, SUPERUSER) at the destination: ${listed(other.map((r) => r.name))}.`,
          'ALTER ROLE them there to be as on the source.',
        ),
      );
    return findings.length > 0 ? combined(findings) : ok(`All ${needed.length.toString()} do.`);
  },
};

const LOGINS_TRIED_MAX = 100;
const LOGIN_TIMEOUT_MS = 3_000;

/** After the switch the clients of each user are served by the other server: so each must get in on both. */
export const users: PreflightCheck = {
  id: 'users',
  title: 'Every configured user gets in on both sides',
  async run(context) {
    const { source, destination, config } = context;
    const usersOf = (side: PreflightSide): readonly UserEntry[] => config.users.filter((u) => u.database === side.name);
    const findings = [
      ...unpaired(usersOf(source), usersOf(destination)).map((user) =>
        // A schema_admin may be a role of the engine alone.
        (user.schemaAdmin ? warning : failed)(
          `User "${user.name}" of "${source.name}" is not configured for "${destination.name}": its clients could not be served after the switch.`,
          `Add "${destination.name}" to the databases of "${user.name}" in users.toml.`,
        ),
      ),
      ...unpaired(usersOf(destination), usersOf(source)).map((user) =>
        warning(
          `User "${user.name}" is configured for "${destination.name}" only, and is gone after a rollback.`,
          `Add "${source.name}" to the databases of "${user.name}" in users.toml if it shall stay.`,
        ),
      ),
    ];
    for (const side of [source, destination])
      for (const user of usersOf(side).slice(0, LOGINS_TRIED_MAX)) findings.push(...(await login(context, side, user)));
    return findings.length > 0 ? combined(findings) : ok(`${usersOf(source).length.toString()} users, tried on both.`);
  },
};

function unpaired(from: readonly UserEntry[], to: readonly UserEntry[]): readonly UserEntry[] {
  const names = new Set(to.map((user) => user.name));
  return from.filter((user) => !names.has(user.name));
}

async function login(context: PreflightContext, side: PreflightSide, user: UserEntry): Promise<readonly Finding[]> {
  const entry = context.config.databases.find((d) => d.name === side.name && d.shard === 0 && d.role !== 'replica');
  if (!entry) return [];
  const endpoint = endpointFor(context.config, entry, user);
  const problem = endpoint.password === undefined ? await roleProblem(side, endpoint) : await loginProblem(endpoint);
  if (problem === null) return [];
  return [
    failed(
      `User "${user.name}" does not get into "${side.name}": ${problem}.`,
      `Create the role ${JSON.stringify(endpoint.user)} at ${addressOf(endpoint)}, or correct its password in users.toml.`,
    ),
  ];
}

async function loginProblem(endpoint: Endpoint): Promise<string | null> {
  try {
    await withConnection(endpoint, (connection) => connection.query('SELECT'), { connectTimeoutMs: LOGIN_TIMEOUT_MS });
    return null;
  } catch (error) {
    return messageOf(error);
  }
}

/** Where only a verifier is configured there is no password to try: the role must at least be there. */
async function roleProblem(side: PreflightSide, endpoint: Endpoint): Promise<string | null> {
  const { login } = await rowOf<{ login: boolean }>(
    side,
    'SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND rolcanlogin) AS login',
    [endpoint.user],
  );
  return login ? null : `there is no role ${JSON.stringify(endpoint.user)} with LOGIN`;
}

interface SettingRow {
  /** empty: every role */
  readonly role: string;
  readonly here: boolean;
  readonly name: string;
  readonly value: string;
}

const ROLE_SETTINGS = `
  SELECT coalesce(r.rolname, '') AS role, s.setdatabase <> 0 AS here,
    split_part(c.text, '=', 1) AS name, substr(c.text, strpos(c.text, '=') + 1) AS value
  FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole CROSS JOIN LATERAL unnest(s.setconfig) AS c (text)
  WHERE s.setdatabase = 0 OR s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
  ORDER BY 1, 2, 3`;

/** A dump of one database does not hold them (PostgreSQL documentation, pg_dump, Notes). Values may be secrets: names only. */
export const databaseSettings: PreflightCheck = {
  id: 'database-settings',
  title: 'ALTER DATABASE/ROLE … SET is the same at the destination',
  async run({ source, destination }) {
    const there = new Set((await rowsOf<SettingRow>(destination, ROLE_SETTINGS)).map((row) => JSON.stringify(row)));
    const roleNames = await rowsOf<{ name: string }>(destination, 'SELECT rolname AS name FROM pg_roles');
    const known = new Set(['', ...roleNames.map((row) => row.name)]);
    const missing = (await rowsOf<SettingRow>(source, ROLE_SETTINGS)).filter(
      (row) => known.has(row.role) && !there.has(JSON.stringify(row)),
    );
    if (missing.length === 0) return ok('It is.');
    return warning(
      `Set otherwise or not at all at the destination: ${listed(missing.map(settingText))}.`,
      'Set them there as on the source (values are not shown here: psql, \\drds).',
    );
  },
};

function settingText({ role, here, name }: SettingRow): string {
  if (role === '') return `ALTER DATABASE … SET ${name}`;
  return `ALTER ROLE ${JSON.stringify(role)}${here ? ' IN DATABASE …' : ''} SET ${name}`;
}
