/**
 * One task: real drivers work through the proxy as they do without it, and through a move and the way back.
 *
 * One move for all of them: each has a program of its own that tries its features, then writes numbers until it is told to end.
 * `SHARDED_TESTS=all` runs every feature directly as well, not only those that fail through the proxy.
 * Reads do not share connections at first, and do on the way back; `PIPELINING=auto` and `PIPELINING=off`: all along.
 * `CLIENTS=write` writes the table of docs/clients.md instead of comparing with it.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Cleanup } from '../../src/cli/demo/cleanup.js';
import { Operator } from '../../src/cli/demo/operator.js';
import { APPLICATION_USER, DESTINATION, setStage, SOURCE, type Stage } from '../../src/cli/demo/stage.js';
import { freePort, LOOPBACK } from '../../src/dev/ports.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { invariant } from '../../src/errors/invariant.js';
import { makeAuthority, writeCertificate } from '../support/certificates.js';
import { THOROUGH } from '../support/thorough.js';
import { setTls } from '../support/tls-cluster.js';
import { until } from '../support/wait.js';
import { DRIVERS, languages, type Driver } from './drivers.js';
import { COLUMNS, heading, row } from './page.js';
import { Program } from './program.js';

const ROOT = join(import.meta.dirname, '..', '..');
const MAIN = join(ROOT, 'dist', 'src', 'cli', 'main.js');
const PAGE = join(ROOT, 'docs', 'clients.md');
const TABLE = /^\|.*$(\n\|.*$)*/m;
const WRITE = process.env.CLIENTS === 'write';
/** null: off, until the database has moved once */
const PIPELINING = process.env.PIPELINING ?? null;
const PUBLICATION = 'clients';
const MOVE_DEADLINE_MS = 120_000;
/** Of what arrives it costs nothing. */
const NOTIFY_WAIT_MS = 10_000;
/** The last numbers of a program that have to be where the traffic is. */
const WRITES_BEHIND = 4;
/** It runs beside others, with the lowest priority. */
const WRITE_DEADLINE_MS = 60_000;
const INSTALL_DEADLINE_MS = 600_000;
const RUN_DEADLINE_MS = 600_000;

interface Written {
  readonly n: number;
  /** the port of the server that took it */
  readonly server: number;
}

const cleanup = new Cleanup();
const folder = mkdtempSync(join(tmpdir(), 'cutover-clients-'));
const authority = makeAuthority('authority');
/** Both the proxy and the source show it. By its other name: postgres.js asks for that one where it is given an address. */
const certified = authority.issue('server', ['127.0.0.1', 'localhost']);
const trusted = writeCertificate(folder, authority);
const stranger = writeCertificate(folder, makeAuthority('stranger'));
const shown = writeCertificate(folder, certified);
const missing = new Map<Driver['language'], string>();
const folders = new Map<Driver['language'], string>([['node', '']]);
const programs = new Map<Driver, Program>();
const written = new Map<Driver, readonly Written[]>();
let stage: Stage | null = null;

beforeAll(async () => {
  for (const [name, language] of Object.entries(await languages())) {
    if ('missing' in language) missing.set(name as Driver['language'], language.missing);
    else folders.set(name as Driver['language'], language.folder);
  }
}, INSTALL_DEADLINE_MS);

beforeAll(async () => {
  const metricsPort = await freePort();
  const general = [
    ...[`tls_certificate = "${shown.certificate}"`, `tls_private_key = "${shown.key}"`],
    ...[`pipelining = "${PIPELINING ?? 'off'}"`, `openmetrics_port = ${metricsPort.toString()}`],
  ];
  stage = await setStage({ from: 17, to: 18, ui: false, program: MAIN, general, report: () => undefined }, cleanup);
  await setTls(stage.source, certified);
  await stage.source.query(SOURCE, tables());
  start(stage);
  const all = [...programs.values()];
  await Promise.all(all.map((program) => program.begun()));
  await thereAndBack(stage, metricsPort);
  await Promise.all(all.map((program) => program.end()));
  for (const driver of programs.keys()) written.set(driver, await writtenBy(stage.source, driver));
}, RUN_DEADLINE_MS);

afterAll(async () => {
  for (const program of programs.values()) program.kill();
  await cleanup.run();
  rmSync(folder, { recursive: true, force: true });
});

/** Of each driver: what it inserts and copies, values of many types, and its loop, which notes the server that took each number. */
function tables(): string {
  const statements = DRIVERS.map(
    ({ name }) => `
CREATE TABLE ${name}_items (id integer PRIMARY KEY, note text NOT NULL);
CREATE TABLE ${name}_types (id integer PRIMARY KEY, small smallint, big bigint, exact numeric, double double precision,
  truth boolean, words text, bytes bytea, code uuid, day date, moment timestamptz, document jsonb, numbers bigint[], texts text[]);
CREATE TABLE ${name}_loop (n integer PRIMARY KEY, server integer NOT NULL DEFAULT current_setting('port')::integer);`,
  );
  return `SET ROLE ${APPLICATION_USER}; ${statements.join('')} RESET ROLE; CREATE PUBLICATION ${PUBLICATION} FOR ALL TABLES`;
}

function start({ source, application }: Stage): void {
  const where = {
    PGHOST: application.host,
    PGUSER: application.user,
    PGPASSWORD: application.password,
    PGDATABASE: application.database,
    DIRECT_PORT: source.port.toString(),
    PROXY_PORT: application.port.toString(),
    TRUSTED_CA: trusted.certificate,
    OTHER_CA: stranger.certificate,
    NOTIFY_WAIT_MS_DIRECT: NOTIFY_WAIT_MS.toString(),
    NOTIFY_WAIT_MS_PROXY: NOTIFY_WAIT_MS.toString(),
    DIRECT: THOROUGH ? 'all' : 'failed',
  };
  for (const driver of DRIVERS) {
    const folder = folders.get(driver.language);
    if (folder !== undefined) programs.set(driver, new Program(driver.name, driver.command(folder), where));
  }
}

/** Moves the database and takes it back, and waits each time until every program has written where it then is. */
async function thereAndBack({ configuration, source, destination }: Stage, metricsPort: number): Promise<void> {
  const operator = await Operator.connect(configuration.admin);
  try {
    const task = await operator.reshard(SOURCE, DESTINATION, PUBLICATION);
    const { epoch } = await operator.untilMoved(task, 0, MOVE_DEADLINE_MS);
    await allHaveWritten(destination);
    if (PIPELINING === null) await shareReads(configuration.files.config, operator);
    if (PIPELINING !== 'off') await readsAreShared(metricsPort);
    const reverse = await operator.reverseTask(MOVE_DEADLINE_MS);
    await operator.command(`CUTOVER ${reverse}`);
    await operator.untilMoved(reverse, epoch, MOVE_DEADLINE_MS);
    await allHaveWritten(source);
    if (PIPELINING !== 'off') await readsAreShared(metricsPort);
  } finally {
    await operator.end();
  }
}

async function shareReads(file: string, operator: Operator): Promise<void> {
  writeFileSync(file, readFileSync(file, 'utf8').replace('pipelining = "off"', 'pipelining = "auto"'));
  await operator.command('RELOAD');
}

/** Waits until reads share a connection, from now on. */
async function readsAreShared(metricsPort: number): Promise<void> {
  const count = async (): Promise<number> => {
    const text = await (await fetch(`http://${LOOPBACK}:${metricsPort.toString()}/metrics`)).text();
    return [...text.matchAll(/^\w*total_shared_reads\w*\{.*\} (\d+)$/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
  };
  const before = await count();
  await until('reads share a connection', async () => (await count()) > before, WRITE_DEADLINE_MS);
}

async function allHaveWritten(serving: Cluster): Promise<void> {
  const writing = [...programs].map(([driver, program]) =>
    until(
      `${driver.title} writes at ${serving.port.toString()}`,
      async () => {
        if (program.over) return true;
        const numbers = await writtenBy(serving, driver);
        return numbers.slice(-WRITES_BEHIND).every(({ server }) => server === serving.port);
      },
      WRITE_DEADLINE_MS,
    ),
  );
  await Promise.all(writing);
}

function writtenBy(serving: Cluster, { name }: Driver): Promise<readonly Written[]> {
  return serving.query<Written>(SOURCE, `SELECT n, server FROM ${name}_loop ORDER BY n`);
}

describe.each(DRIVERS)('$title', (driver) => {
  test('its features work as the page says, and as they do without the proxy', (context) => {
    const program = programs.get(driver);
    if (program === undefined) return context.skip(reasonOf(driver));
    const failed = program.outcomes.filter(({ ok, feature }) => ok === false && feature !== 'cutover');
    expect(failed.filter(({ via }) => via === 'direct')).toEqual([]);
    const told = `${program.lastWords}${JSON.stringify(failed, null, 2)}`;
    if (!WRITE) expect(documented(), told).toContain(row(driver, program.outcomes));
  });

  test('it writes on through a move and the way back: no error, nothing lost, nothing twice', (context) => {
    const program = programs.get(driver);
    if (program === undefined) return context.skip(reasonOf(driver));
    const verdict = program.outcomes.find(({ feature }) => feature === 'cutover');
    expect(verdict, program.lastWords).toMatchObject({ ok: true });
    const numbers = written.get(driver) ?? [];
    expect(numbers.map(({ n }) => n)).toEqual(Array.from({ length: verdict?.acknowledged ?? 0 }, (_, at) => at + 1));
    const sides = numbers.map(({ server }) => server).filter((server, at, all) => server !== all[at - 1]);
    expect(sides).toEqual([stage?.source.port, stage?.destination.port, stage?.source.port]);
  });
});

test('the page has a row for each driver, and no other', () => {
  if (WRITE) {
    invariant(missing.size === 0, `everything is on this machine: ${[...missing.values()].join(', ')}`);
    writeTable();
    return;
  }
  const [first, , ...rows] = documented();
  expect(first).toBe(heading());
  expect(rows.map((line) => line.split(' | ')[0])).toEqual(DRIVERS.map(({ title }) => `| ${title}`));
});

function reasonOf({ language }: Driver): string {
  return `${missing.get(language) ?? 'it was not started'} on this machine`;
}

/** The lines of the table, which is the first of the page. */
function documented(): readonly string[] {
  return TABLE.exec(readFileSync(PAGE, 'utf8'))?.[0].split('\n') ?? [];
}

function writeTable(): void {
  const rows = [...programs].map(([driver, { outcomes }]) => row(driver, outcomes));
  const columns = Object.keys(COLUMNS).length + 2;
  const table = [heading(), `|${' --- |'.repeat(columns)}`, ...rows];
  const text = readFileSync(PAGE, 'utf8');
  writeFileSync(PAGE, text.replace(TABLE, table.join('\n')));
}
