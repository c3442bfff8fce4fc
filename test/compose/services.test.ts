/** One task: run the commands and scripts of docker-compose.yml on real servers, without containers. */
import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { temporalBinary } from '../../src/dev/temporal-binary.js';
import { useClusters } from '../support/clusters.js';
import { useTemporal } from '../support/temporal.js';
import { ROOT, service, settingsOf } from './compose-file.js';

const run = promisify(execFile);

/** The file on this machine that a container sees at `path`. */
function mounted(name: string, path: string): string {
  for (const mount of service(name).volumes) {
    const [source = '', target = ''] = mount.split(':');
    if (path.startsWith(`${target}/`)) return join(ROOT, source, path.slice(target.length + 1));
  }
  throw new Error(`${name} mounts nothing at ${path}`);
}

/** The script that a service runs as its entry point. */
function scriptOf(name: string): string {
  const [shell, path = ''] = service(name).entrypoint ?? [];
  expect(shell).toBe('/bin/sh');
  return mounted(name, path);
}

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cutover-compose-'));
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('the two databases', () => {
  const clusters = useClusters({
    source: { major: 17, settings: settingsOf(service('source').command ?? []) },
    destination: { major: 18, settings: settingsOf(service('destination').command ?? []) },
  });

  test('start with the settings of their commands, which logical replication needs', async () => {
    for (const cluster of [clusters.source, clusters.destination]) {
      const [row] = await cluster.query('postgres', "SELECT current_setting('wal_level') AS wal");
      expect(row).toEqual({ wal: 'logical' });
    }
  });

  test('hold something to move: the first start of the source runs the mounted SQL', async () => {
    await clusters.source.createDatabase('app');
    const file = mounted('source', '/docker-entrypoint-initdb.d/ledger.sql');
    await clusters.source.query('app', readFileSync(file, 'utf8'));
    const [row] = await clusters.source.query(
      'app',
      "SELECT count(*)::int AS rows, (SELECT count(*)::int FROM pg_publication WHERE pubname = 'cutover') AS publications FROM ledger",
    );
    expect(row).toEqual({ rows: 10_000, publications: 1 });
  });

  test('answer their health check', async (context) => {
    const [kind, program = '', ...args] = service('source').healthcheck?.test ?? [];
    expect([kind, program]).toEqual(['CMD', 'pg_isready']);
    const installed = await run(program, ['--version']).then(
      () => true,
      () => false,
    );
    if (!installed) context.skip('pg_isready (postgresql-client) is not installed');
    const { stdout } = await run(program, [...args, `--port=${clusters.source.port.toString()}`]);
    expect(stdout).toContain('accepting connections');
  });
});

describe("Temporal's first start", () => {
  const temporal = useTemporal();

  test('makes the namespace, and does so again without an error', async () => {
    const script = scriptOf('temporal-namespace');
    const program = await temporalBinary();
    const env = {
      PATH: [dirname(program), process.env.PATH].join(delimiter),
      HOME: folder,
      TEMPORAL_ADDRESS: temporal().address,
      TEMPORAL_NAMESPACE: 'compose',
    };
    await run('/bin/sh', [script], { env });
    await run('/bin/sh', [script], { env });
    const connection = await Connection.connect({ address: temporal().address });
    const { namespaceInfo } = await connection.workflowService.describeNamespace({ namespace: 'compose' });
    await connection.close();
    expect(namespaceInfo?.name).toBe('compose');
  });

  test('makes both schemas in order, and a failed update fails the start', async () => {
    const log = join(folder, 'calls');
    const tool = join(folder, 'temporal-sql-tool');
    const script = scriptOf('temporal-schema');
    const env = { PATH: [folder, process.env.PATH].join(delimiter) };
    const pretend = (program: string): void => {
      writeFileSync(tool, `#!/bin/sh\n${program}\n`);
      chmodSync(tool, 0o755);
    };

    pretend(`echo "$@" >> '${log}'; [ "$3" = update-schema ]`);
    await run('/bin/sh', [script], { env });
    const schemas = '/etc/temporal/schema/postgresql/v12';
    expect(readFileSync(log, 'utf8').trim().split('\n')).toEqual([
      '--db temporal create',
      '--db temporal setup-schema -v 0.0',
      `--db temporal update-schema -d ${schemas}/temporal/versioned`,
      '--db temporal_visibility create',
      '--db temporal_visibility setup-schema -v 0.0',
      `--db temporal_visibility update-schema -d ${schemas}/visibility/versioned`,
    ]);

    pretend('[ "$3" != update-schema ]');
    await expect(run('/bin/sh', [script], { env })).rejects.toMatchObject({ code: 1 });
  });
});
