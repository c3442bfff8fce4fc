/** One task: a configuration that would serve wrongly never loads, and one of PgDog's does. */
import { describe, expect, test } from 'vitest';
import { loadConfig, parseConfig, type LoadOptions } from '../../src/config/load.js';
import type { Config } from '../../src/config/config.js';
import { CutoverError } from '../../src/errors/errors.js';
import { expectSameRow, ownRow } from '../../src/fleet/own-row.js';
import { fileURLToPath } from 'node:url';

const fixture = (name: string): { config: string; users: string } => ({
  config: fileURLToPath(new URL(`fixtures/${name}/pgdog.toml`, import.meta.url)),
  users: fileURLToPath(new URL(`fixtures/${name}/users.toml`, import.meta.url)),
});

const DATABASES = '[[databases]]\nname = "prod"\nhost = "10.0.0.1"\n';
const AUTO = `${DATABASES}role = "auto"\n`;
const USERS = '[[users]]\nname = "app"\ndatabase = "prod"\npassword = "secret-of-app"\n';

function load(config: string, users = USERS, options: LoadOptions = { environment: {} }): Config {
  return parseConfig({ file: 'pgdog.toml', text: config }, { file: 'users.toml', text: users }, options);
}

function failure(config: string, users = USERS, options?: LoadOptions): CutoverError {
  try {
    load(config, users, options);
  } catch (error) {
    if (error instanceof CutoverError) return error;
    throw error;
  }
  throw new Error('it loaded');
}

describe('a file of PgDog', () => {
  const config = loadConfig(fixture('pgdog-user'), { environment: {} });

  test('loads unchanged, and every key without an effect is named once', () => {
    const ignored = config.warnings.filter((warning) => warning.includes('has no effect')).join('\n');
    for (const key of ['workers', '[[query_parsers]]', '[[mirroring]]']) {
      expect(ignored.split(key)).toHaveLength(2);
    }
    expect(ignored).not.toContain('cutover_timeout"');
  });

  test('gives its values and defaults', () => {
    expect(config.general).toMatchObject({
      port: 6432,
      defaultPoolSize: 20,
      checkoutTimeoutMs: 5_000,
      queryTimeoutMs: null,
    });
    expect(config.cutover).toMatchObject({ timeoutMs: 45_000, saveConfig: true, leaseMs: 2_000, soakMs: null });
    expect(config.databases.find((entry) => entry.name === 'prod_new')).toMatchObject({
      port: 5433,
      databaseName: 'prod',
    });
    expect(config.databases.find((entry) => entry.name === 'reports')).toMatchObject({ databaseName: 'reports' });
    expect(config.databases.map(({ role, weight }) => [role, weight]).slice(0, 2)).toStrictEqual([
      ['primary', 200],
      ['replica', undefined],
    ]);
    expect(config.temporal.taskQueue).toBe('cutover');
  });

  test('expands users to every database they name, and all_databases to all', () => {
    const pairs = config.users.map((user) => `${user.name}@${user.database}`);
    expect(pairs).toEqual([
      ...['app@prod', 'app@prod_new', 'batch@prod', 'batch@reports', 'batch@prod_new'],
      ...['prod@prod', 'prod@prod_new', 'prod@reports'],
    ]);
    expect(config.users[2]?.passwords).toEqual(['secret-of-batch-1', 'secret-of-batch-2']);
  });
});

test('pool keys of a role hold for its rows only, and a replica of several shards is a warning', () => {
  const row = (more: string): string => `[[databases]]\nname = "prod"\nhost = "h"\n${more}\n`;
  const sizes = 'pool_size = 1\npool_size_replica = 2\npool_size_primary = 3\nidle_timeout_replica = 4';
  const environment = { PGDOG_READ_WRITE_SPLIT: 'exclude_primary' };
  const config = load(`${row(sizes)}${row(`role = "replica"\n${sizes}`)}`, '', { environment });
  expect(config.databases).toMatchObject([{ poolSize: 3 }, { poolSize: 2, idleTimeoutMs: 4 }]);
  expect(config.databases[0]).not.toHaveProperty('idleTimeoutMs');
  expect(config.replicas).toMatchObject({ strategy: 'random', split: 'exclude_primary', banTimeoutMs: 300_000 });
  expect(config.warnings.join()).not.toContain('replicas');
  const sharded = load(`${row('')}${row('role = "replica"')}${row('shard = 1')}`, '');
  expect(sharded.warnings.join()).toContain('replicas of database "prod" are not used');
});

test('servers are asked where lsn_check_delay says so; what would need the answer and does not get it is a warning', () => {
  expect(load(DATABASES).replicas).toMatchObject({
    lsnCheck: { delayMs: null, intervalMs: 5_000, timeoutMs: 5_000 },
    banLagMs: null,
    banLagBytes: null,
  });
  const limit = 'ban_replica_lag = 100\nban_replica_lag_bytes = 200\n';
  const asked = load(
    `[general]\nlsn_check_delay = 0\nlsn_check_interval = 7\nlsn_check_timeout = 8\n${limit}${AUTO}${AUTO}`,
  );
  expect(asked.replicas).toMatchObject({
    lsnCheck: { delayMs: 0, intervalMs: 7, timeoutMs: 8 },
    banLagMs: 100,
    banLagBytes: 200,
  });
  expect(asked.databases.map(({ role }) => role)).toStrictEqual(['auto', 'auto']);
  expect(asked.warnings.join()).not.toMatch(/lsn_check|auto/);
  expect(load(`[general]\n${limit}${DATABASES}`).warnings.join()).toContain('no effect without "lsn_check_delay"');
  const beside = load(`${AUTO}${DATABASES}role = "replica"`);
  expect(beside.warnings.join()).toContain('"role = auto" of database "prod" is taken as the primary');
});

describe('a wrong file says file, line, key and what was meant', () => {
  test.each([
    ['a misspelt key', `${DATABASES}prot = 5433`, 4, 'unknown key "prot" in [[databases]], did you mean "port"?'],
    [
      'a misspelt table',
      `[genral]\nport = 1\n${DATABASES}`,
      1,
      'unknown table or key "genral", did you mean "general"?',
    ],
    ['a key no one knows', `[general]\nxyzzy = 1\n${DATABASES}`, 2, 'unknown key "xyzzy" in [general]'],
    [
      'a misspelt value',
      `[general]\n# note\npooler_mode = "sesion"`,
      3,
      '"pooler_mode": expected one of "transaction"|"session"|"statement", did you mean "session"?',
    ],
    ['a time in words', '[general]\ncutover_timeout = "5s"', 2, '"cutover_timeout": expected number, received string'],
    ['a time Node would cut to nothing', '[general]\ncutover_timeout = 9000000000', 2, '"cutover_timeout": Too big'],
    ['an integer beyond doubles', '[general]\nport = 18446744073709551615', 2, 'received one too large'],
    ['a missing host', '\n[[databases]]\nname = "prod"', 2, '"host" is missing in [[databases]]'],
    ['a gap in the shards', `${DATABASES}[[databases]]\nname = "prod"\nhost = "b"\nshard = 2`, 7, '1 is missing'],
    [
      'two primaries',
      `${DATABASES}[[databases]]\nname = "prod"\nhost = "b"`,
      4,
      'a second primary of database "prod" shard 0',
    ],
    [
      'servers of an open role whom nobody asks',
      `${AUTO}${AUTO}`,
      4,
      'need "lsn_check_delay" in [general]: without it no server is asked which role it has',
    ],
    [
      'an open role beside a fixed one',
      `[general]\nlsn_check_delay = 0\n${AUTO}${AUTO}${DATABASES}role = "replica"`,
      14,
      'take no other role beside them',
    ],
    [
      'an open role on shards',
      `[general]\nlsn_check_delay = 0\n${AUTO}${AUTO}${DATABASES}shard = 1`,
      6,
      'need a database with one shard',
    ],
    ['no primary', `${DATABASES}role = "replica"`, 1, 'has no primary'],
    ['the admin name taken', DATABASES.replace('prod', 'admin'), 2, 'name of the admin database'],
    ['both names of one key', `[general]\ndefault_pool_size = 1\nmax_pool_size = 2`, 3, 'keep one'],
    ['read_only would be ignored', `${DATABASES}read_only = true`, 4, 'writes would be let through'],
    ['TLS is asked for and not offered', '[general]\ntls_client_required = true', 2, 'needs "tls_certificate"'],
    [
      'the tenant check would be ignored',
      `${DATABASES}[multi_tenant]\ncolumn = "t"`,
      4,
      'queries would be let through',
    ],
    ['broken TOML', `${DATABASES}port =`, 4, 'not valid TOML'],
    ['a table written twice', '[general]\n[general]', 2, 'not valid TOML'],
  ])('%s', (_, text, line, problem) => {
    const error = failure(text);
    expect(error.code).toBe('configuration_invalid');
    expect(error.message).toContain(`pgdog.toml:${line.toString()}: `);
    expect(error.message).toContain(problem);
  });

  test('a user without a database', () => {
    expect(failure(DATABASES, '\n[[users]]\nname = "app"').message).toBe(
      'users.toml:2: user "app" has no database: set "database", "databases" or "all_databases"',
    );
  });

  test('two wrong lines are reported as the first one and a count', () => {
    expect(failure('[general]\nprot = 1\nhots = "x"').message).toContain(
      'pgdog.toml:2: unknown key "prot" in [general], did you mean "port"? (and 1 more)',
    );
  });

  test('line and key are right with CRLF, a byte order mark, dotted keys and inline tables', () => {
    const text =
      '\uFEFF# x\r\ngeneral.port = 1\r\ndatabases = [\r\n  { name = "prod", host = "h", hots = "h" },\r\n]\r\n';
    const error = failure(text);
    expect(error.details).toMatchObject({ line: 4, key: 'databases[0].hots' });
  });

  test('a file that is not there', () => {
    expect(() => loadConfig({ config: 'nowhere/pgdog.toml', users: 'nowhere/users.toml' })).toThrow(
      'nowhere/pgdog.toml:1: cannot be read (ENOENT)',
    );
  });
});

test('a password never gets into an error, whatever is wrong around it', () => {
  const secret = 'hunter2hunter2';
  const broken = [
    `[[users]]\nname = "app"\npassword = "${secret}`,
    `[[users]]\nname = "app"\npassword = "${secret}" x`,
    `[[users]]\nname = "app"\npassword = ["${secret}"]`,
    `[[users]]\nname = "app"\npasword = "${secret}"`,
    `[[users]]\nname = "app"\nserver_auth = "${secret}"`,
    `[[users]]\nname = "app"\nidentity = ".${secret}"`,
    `[[users]]\nname = "app"\npassword_hash = "${secret}"`,
  ];
  for (const users of broken) {
    const error = failure(DATABASES, users);
    expect(JSON.stringify([error.message, error.remedy, error.details, error.stack])).not.toContain(secret);
  }
  const environment = { PGDOG_PORT: secret };
  expect(failure(DATABASES, USERS, { environment }).message).toBe(
    'environment variable PGDOG_PORT: expected number, received string',
  );
});

describe('what merely surprises is a warning', () => {
  test.each([
    [
      'a user of an absent database',
      `${USERS}[[users]]\nname = "x"\ndatabase = "gone"`,
      'user "x" is ignored for database "gone"',
    ],
    ['a user defined twice', USERS + USERS, 'defined twice'],
  ])('%s', (_, users, warning) => {
    const config = load(DATABASES, users);
    expect(config.warnings.join('\n')).toContain(warning);
    expect(config.users).toHaveLength(1);
  });

  test('a second schema_admin does not count', () => {
    const admin = (name: string): string => `[[users]]\nname = "${name}"\ndatabase = "prod"\nschema_admin = true\n`;
    const config = load(DATABASES, admin('one') + admin('two'));
    expect(config.users.map((user) => user.schemaAdmin)).toEqual([true, false]);
    expect(config.warnings.join('\n')).toContain(
      'database "prod" has two schema_admin users: "one" counts, "two" does not',
    );
  });

  test('a hash that proves nothing, and statements that are prepared all the same', () => {
    const md5 = USERS.replace(/password = .*/, `password_hash = "md5${'0'.repeat(32)}"`);
    expect(load(DATABASES, md5).warnings.join('\n')).toContain('lets nobody in with auth_type = "scram"');
    expect(load(`[general]\nauth_type = "md5"\n${DATABASES}`, md5).warnings.join('\n')).not.toContain('lets nobody in');
    expect(load('[general]\nprepared_statements = "full"').warnings.join('\n')).not.toContain('prepared');
    expect(load('[general]\nprepared_statements = "disabled"').warnings.join('\n')).toContain('has no effect');
  });

  test('keys of [tcp] that Node cannot set, beside those it can', () => {
    const config = load('[tcp]\ntime = 1500\nretries = 3\nuser_timeout = 5000');
    expect(config.tcp).toEqual({ keepAliveMs: 2_000 });
    expect(config.warnings.join('\n')).toMatch(/"retries" in \[tcp\] .*asks 10 times\n.*"user_timeout" in \[tcp\]/);
    expect(load('[tcp]\nkeepalives = false').tcp).toEqual({ keepAliveMs: null });
  });

  test('cutover_max_clients = 0 is the default, not a proxy for nobody', () => {
    expect(load('[general]\ncutover_max_clients = 0').general.maxClients).toBe(10_000);
  });

  test('an empty password lets no one in', () => {
    expect(load(DATABASES, USERS.replace('secret-of-app', '')).users[0]?.passwords).toEqual([]);
  });
});

describe('environment', () => {
  test('gives a default, and the file has priority', () => {
    const environment = { PGDOG_PORT: '7000', PGDOG_CUTOVER_SAVE_CONFIG: 'true', PGDOG_DEFAULT_POOL_SIZE: '3' };
    const config = load(`[general]\nmax_pool_size = 4\n${DATABASES}`, USERS, { environment });
    expect(config.general).toMatchObject({ port: 7000, defaultPoolSize: 4 });
    expect(config.cutover.saveConfig).toBe(true);
  });
});

describe('admin', () => {
  test('has a random password each start, kept by a reload', () => {
    const first = load(DATABASES).admin;
    expect(first).toMatchObject({ name: 'admin', user: 'admin', passwordConfigured: false });
    expect(first.password).not.toBe(load(DATABASES).admin.password);
    expect(load(DATABASES, USERS, { adminPassword: first.password }).admin.password).toBe(first.password);
  });

  test('without a password says that no one can log in', () => {
    const mentions = (config: Config): boolean => config.warnings.some((warning) => warning.includes('[admin]'));
    expect(mentions(load(DATABASES))).toBe(true);
    expect(mentions(load(`${DATABASES}[admin]\npassword = "a"`))).toBe(false);
  });

  test('in users.toml has priority', () => {
    const admin = load(`${DATABASES}[admin]\npassword = "a"`, `${USERS}[admin]\nuser = "root"\npassword = "b"`).admin;
    expect(admin).toMatchObject({ user: 'root', password: 'b', passwordConfigured: true });
  });
});

describe('nodes', () => {
  const node = (name: string, port: number): string =>
    `[[nodes]]\nname = "${name}"\nhost = "10.0.0.9"\nport = ${port.toString()}\n`;

  test.each([
    ['one name', node('a', 1) + node('a', 2), 'pgdog.toml:9: two nodes are called "a"'],
    ['one address', node('a', 1) + node('b', 1), 'pgdog.toml:11: nodes "a" and "b" have the same address'],
  ])('two of them with %s are refused, with the line', (_, nodes, sentence) => {
    expect(failure(DATABASES + nodes).message).toContain(sentence);
  });

  test('a process that cannot tell which of them it is says so, and by what it may be told', () => {
    const config = load(DATABASES + node('a', 1) + node('b', 2));
    expect(() => ownRow(config, 'z')).toThrow('there is no node "z" (known: a, b)');
    expect(() => ownRow(config, undefined)).toThrow('none of the nodes has the address of this process');
    expect(ownRow(config, 'b')).toBe('b');
  });

  test('a process keeps the row it was started as when the files are loaded again, or says what is in the way', () => {
    const config = load(DATABASES + node('a', 1) + node('b', 2));
    expectSameRow(config, 'b', 'b');
    expectSameRow(load(DATABASES), undefined, 'b');
    const here = load(
      `[general]\nport = 7000\n${DATABASES}${node('a', 1)}${node('b', 7000)}`.replaceAll('10.0.0.9', 'localhost'),
    );
    expectSameRow(here, undefined, 'b');
    const refused = (config_: Config, given: string | undefined, started: string | null): (() => void) => {
      return () => {
        expectSameRow(config_, given, started);
      };
    };
    expect(refused(config, 'c', 'c')).toThrow('there is no node "c" (known: a, b)');
    expect(refused(config, undefined, 'a')).toThrow('none of the nodes has the address of this process');
    expect(refused(here, undefined, 'a')).toThrow('it was started as "a", and would have to be started again as "b"');
    expect(refused(here, undefined, null)).toThrow('it was started alone, without rows, and would have to be');
  });
});
