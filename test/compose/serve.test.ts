/** One task: start the proxy exactly as docker-compose.yml does, with its files, against servers on this machine. */
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freePort, LOOPBACK } from '../../src/dev/ports.js';
import { invariant } from '../../src/errors/invariant.js';
import { spawnScript, type Child } from '../support/child.js';
import { useClusters } from '../support/clusters.js';
import { useTemporal } from '../support/temporal.js';
import { until } from '../support/wait.js';
import { ROOT, service } from './compose-file.js';

/** What `bin.cutover` of package.json is built from. */
const PROGRAM = join(ROOT, 'src', 'cli', 'main.ts');

const clusters = useClusters({
  source: { major: 17, auth: 'scram' },
  destination: { major: 18, auth: 'scram' },
});
const temporal = useTemporal();

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cutover-serve-'));
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** The files of compose/proxy with the names of the containers replaced by what runs on this machine. */
function localFiles(port: number): void {
  cpSync(join(ROOT, 'compose', 'proxy'), folder, { recursive: true });
  const file = join(folder, 'pgdog.toml');
  let text = readFileSync(file, 'utf8');
  const replace = (from: string, to: string): void => {
    invariant(text.split(from).length === 2, `compose/proxy/pgdog.toml contains ${from} once`);
    text = text.replace(from, to);
  };
  replace('port = 6432', `port = ${port.toString()}`);
  replace('address = "temporal:7233"', `address = "${temporal().address}"`);
  for (const name of ['source', 'destination'] as const) {
    const { host, port: serverPort } = clusters[name];
    replace(`host = "${name}"\nport = 5432`, `host = "${host}"\nport = ${serverPort.toString()}`);
  }
  writeFileSync(file, text);
}

/** Makes what the PostgreSQL image makes of POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB at its first start. */
async function firstStart(): Promise<void> {
  for (const name of ['source', 'destination'] as const) {
    const { POSTGRES_USER: user, POSTGRES_PASSWORD: password, POSTGRES_DB: database } = service(name).environment;
    invariant(user && password && database, `${name} has a user, a password and a database`);
    await clusters[name].query('postgres', `CREATE ROLE ${user} SUPERUSER LOGIN PASSWORD '${password}'`);
    await clusters[name].query('postgres', `CREATE DATABASE ${database} OWNER ${user}`);
  }
  await clusters.source.query('app', readFileSync(join(ROOT, 'compose', 'source', 'ledger.sql'), 'utf8'));
}

async function ask(port: number, target: pg.ClientConfig, sql: string): Promise<readonly unknown[]> {
  const client = new pg.Client({ host: LOOPBACK, port, ...target });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

test.skipIf(!existsSync(PROGRAM))(
  'the proxy of docker-compose.yml serves its database and its admin database',
  async () => {
    await firstStart();
    const port = await freePort();
    localFiles(port);
    const command = (service('proxy').command ?? []).map((word) => word.replace('/etc/cutover', folder));
    const child: Child = spawnScript(PROGRAM, command);
    try {
      const rows = await until(
        'the proxy answers',
        () =>
          child.process.exitCode === null
            ? ask(
                port,
                { user: 'app', password: 'app-password', database: 'prod' },
                'SELECT count(*)::int AS n FROM ledger',
              )
            : Promise.reject(new Error(child.output())),
        30_000,
      );
      expect(rows).toEqual([{ n: 10_000 }]);
      const admin = { user: 'admin', password: 'admin-password', database: 'admin' };
      expect(await ask(port, admin, 'SHOW VERSION')).toHaveLength(1);
    } finally {
      child.process.kill('SIGTERM');
    }
    expect(await child.ended).toBe(0);
  },
);
