/** One task: name the drivers that are tried, where each comes from, and how its program is started. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { invariant } from '../../src/errors/invariant.js';

const HERE = import.meta.dirname;
const ROOT = join(HERE, '..', '..');
const INSTALLER = join(ROOT, 'scripts', 'clients.mjs');

/** What scripts/clients.mjs prints of a language. */
type Language = { readonly folder: string } | { readonly missing: string };
type Languages = Readonly<Record<'python' | 'go' | 'java' | 'postgres', Language>>;

export interface Driver {
  /** what its tables and its channel are called after */
  readonly name: string;
  /** as the page calls it */
  readonly title: string;
  readonly language: keyof Languages | 'node';
  /** what is pinned of it */
  readonly version: string;
  /** given the folder of its language */
  readonly command: (folder: string) => Command;
}

export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

const node = (file: string) => (): Command => ({
  program: process.execPath,
  args: ['--no-deprecation', join(HERE, 'node', file)],
});

const python =
  (file: string) =>
  (folder: string): Command => ({
    program: 'python3',
    args: ['-B', join(HERE, 'python', file)],
    env: { PYTHONPATH: [folder, process.env.PYTHONPATH ?? ''].filter((path) => path !== '').join(delimiter) },
  });

const go =
  (name: string) =>
  (folder: string): Command => ({ program: join(folder, name), args: [] });

const java = (folder: string): Command => {
  const classes = [folder, join(folder, 'driver.jar')].join(delimiter);
  // It runs for seconds: what is compiled a second time would not pay.
  return { program: 'java', args: ['-XX:TieredStopAtLevel=1', '-cp', classes, 'JdbcClient'] };
};

const shell = (file: string) => (): Command => ({ program: 'bash', args: [join(HERE, 'shell', file)] });

/** In the order of the page. */
export const DRIVERS: readonly Driver[] = [
  { name: 'psql', title: 'psql', language: 'postgres', version: 'of the machine', command: shell('psql.sh') },
  { name: 'pgbench', title: 'pgbench', language: 'postgres', version: 'of the machine', command: shell('pgbench.sh') },
  { name: 'pg', title: 'node-postgres', language: 'node', version: npm('pg'), command: node('pg.mjs') },
  { name: 'postgres', title: 'postgres.js', language: 'node', version: npm('postgres'), command: node('postgres.mjs') },
  {
    name: 'drizzle',
    title: 'Drizzle (node-postgres)',
    language: 'node',
    version: npm('drizzle-orm'),
    command: node('drizzle.mjs'),
  },
  {
    name: 'psycopg',
    title: 'psycopg 3',
    language: 'python',
    version: pypi('psycopg'),
    command: python('psycopg_client.py'),
  },
  {
    name: 'asyncpg',
    title: 'asyncpg',
    language: 'python',
    version: pypi('asyncpg'),
    command: python('asyncpg_client.py'),
  },
  {
    name: 'sqlalchemy',
    title: 'SQLAlchemy (psycopg 3)',
    language: 'python',
    version: pypi('sqlalchemy'),
    command: python('sqlalchemy_client.py'),
  },
  { name: 'pgx', title: 'pgx', language: 'go', version: goModule('jackc/pgx/v5'), command: go('pgx') },
  { name: 'pq', title: 'database/sql with lib/pq', language: 'go', version: goModule('lib/pq'), command: go('pq') },
  {
    name: 'jdbc',
    title: 'pgJDBC',
    language: 'java',
    version: pinned('java/driver.sha256', /-([\d.]+)\.jar/),
    command: java,
  },
];

/** Gets what the languages need, unless it is there. */
export async function languages(): Promise<Languages> {
  const { stdout } = await promisify(execFile)(process.execPath, [INSTALLER]);
  return JSON.parse(stdout) as Languages;
}

function npm(name: string): string {
  const { dependencies, devDependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Readonly<
    Record<'dependencies' | 'devDependencies', Readonly<Record<string, string>>>
  >;
  const version = dependencies[name] ?? devDependencies[name];
  invariant(version !== undefined, `package.json pins ${name}`);
  return version;
}

function pypi(name: string): string {
  return pinned('python/requirements.txt', new RegExp(`^${name}==([\\w.]+)`, 'm'));
}

function goModule(name: string): string {
  return pinned('go/go.mod', new RegExp(`github.com/${name} v([\\w.]+)`));
}

function pinned(file: string, version: RegExp): string {
  const found = version.exec(readFileSync(join(HERE, file), 'utf8'))?.[1];
  invariant(found !== undefined, `${file} has a version like ${version.source}`);
  return found;
}
