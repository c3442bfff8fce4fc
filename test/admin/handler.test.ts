/** One task: each command asks the right thing, and each view has PgDog's columns and formats. */
import { beforeEach, describe, expect, test } from 'vitest';
import { AdminDatabase } from '../../src/admin/handler.js';
import { formatBytes, formatCount, formatDuration, formatTime } from '../../src/admin/format.js';
import { configOf, fakePorts, type FakePorts } from './fake-ports.js';
import type { TaskRow } from '../../src/admin/ports.js';
import { fingerprint } from '../../src/config/fingerprint.js';

let ports: FakePorts;
let admin: AdminDatabase;

beforeEach(() => {
  ports = fakePorts();
  admin = new AdminDatabase(ports);
});

/** The rows as objects, as a driver shows them. */
async function rowsOf(statement: string): Promise<Record<string, string | null>[]> {
  const { columns, rows } = await admin.execute(statement);
  return rows.map((row) => {
    expect(row).toHaveLength(columns.length);
    return Object.fromEntries(columns.map(({ name }, index) => [name, row[index] ?? null]));
  });
}

async function columnsOf(statement: string): Promise<string> {
  return (await admin.execute(statement)).columns.map(({ name }) => name).join(' ');
}

describe('commands', () => {
  test.each([
    [
      'RESHARD prod prod_new p',
      'RESHARD',
      [{ task_id: '7' }],
      'start [{"kind":"reshard","source":"prod","destination":"prod_new","publication":"p"}]',
    ],
    [
      'COPY_DATA prod prod_new p',
      'COPY_DATA',
      [{ task_id: '7', replication_slot: 'cutover_7' }],
      'start [{"kind":"copy_data","source":"prod","destination":"prod_new","publication":"p"}]',
    ],
    [
      'SCHEMA_SYNC POST a b p',
      'SCHEMA_SYNC',
      [{ task_id: '7' }],
      'start [{"kind":"schema_sync","source":"a","destination":"b","publication":"p","part":"post"}]',
    ],
    ['CUTOVER', 'CUTOVER', [{ cutover: 'OK' }], 'cutover [null,false]'],
    ['CUTOVER 7', 'CUTOVER', [{ cutover: 'OK' }], 'cutover [{"taskId":7},false]'],
    ['CUTOVER prod ACCEPT LOSS', 'CUTOVER', [{ cutover: 'OK' }], 'cutover [{"name":"prod"},true]'],
    [
      'CUTOVER prod DRY RUN',
      'CUTOVER',
      [{ part: 'preflight', name: 'versions', verdict: 'ok', detail: '17 to 18', remedy: '' }],
      'dryRun [{"name":"prod"}]',
    ],
    ['STOP_TASK 7', 'STOP_TASK', [{ stop_task: 'OK' }], 'stop [7,false]'],
    ['VERIFY prod prod_new', 'VERIFY', [{ task_id: '9' }], 'verify ["prod","prod_new"]'],
    ['STOP_TASK 7 SAVE', 'STOP_TASK', [{ stop_task: 'OK' }], 'stop [7,true]'],
    ['STOP_TASK 8', 'STOP_TASK', [{ stop_task: 'task not found' }], 'stop [8,false]'],
    ['RETIRE prod_new', 'RETIRE', [], 'retire ["prod_new"]'],
    ['RELOAD', 'RELOAD', [], 'reload []'],
    ['RECONNECT', 'RECONNECT', [], 'reconnect []'],
    ['BAN 3', 'BAN', [], 'setBan [3,true]'],
    ['UNBAN', 'UNBAN', [], 'setBan [null,false]'],
    ['SHUTDOWN', 'SHUTDOWN', [], 'shutdown []'],
  ])('%s', async (statement, tag, rows, call) => {
    expect((await admin.execute(statement)).tag).toBe(tag);
    ports.calls.length = 0;
    expect(await rowsOf(statement)).toEqual(rows);
    expect(ports.calls).toEqual([call]);
  });

  test('a source that is its own destination is refused before anything is asked', async () => {
    await expect(admin.execute('RESHARD prod prod p')).rejects.toMatchObject({ code: 'same_database' });
    expect(ports.calls).toEqual([]);
  });

  test('a setting that would be ignored is refused; what drivers set on connecting is not', async () => {
    await expect(admin.execute('SET cutover_timeout TO 1')).rejects.toMatchObject({
      code: 'setting_fixed',
      sqlstate: '55P02',
    });
    expect(await admin.execute("SET DateStyle TO 'ISO'")).toMatchObject({ tag: 'SET', columns: [] });
  });

  test('PROBE of nothing is an error without the password', async () => {
    const failed = admin.execute('PROBE postgres://u:hunter2@127.0.0.1:1/d');
    await expect(failed).rejects.toMatchObject({ code: 'probe_failed' });
    await expect(failed).rejects.toThrow(/^(?!.*hunter2).*127\.0\.0\.1:1\/d/s);
    await expect(admin.execute('PROBE mysql://h')).rejects.toMatchObject({ code: 'probe_failed' });
  });
});

describe('maintenance and pause', () => {
  const reasons = (): string[] => ['prod', 'prod_new'].map((name) => ports.proxy.gate(name).reasons.join('+'));

  test('a global OFF does not undo what was asked for one database', async () => {
    await admin.execute('MAINTENANCE ON prod');
    await admin.execute('MAINTENANCE ON');
    expect(reasons()).toEqual(['maintenance', 'maintenance']);
    await admin.execute('MAINTENANCE OFF');
    expect(reasons()).toEqual(['maintenance', '']);
    await admin.execute('MAINTENANCE OFF prod');
    expect(reasons()).toEqual(['', '']);
  });

  test('a global ON is not undone for one database', async () => {
    await admin.execute('MAINTENANCE ON');
    await admin.execute('MAINTENANCE OFF prod');
    expect(reasons()).toEqual(['maintenance', 'maintenance']);
  });

  test('PAUSE, MAINTENANCE and a cutover do not open each other', async () => {
    ports.proxy.gate('prod').close('cutover');
    await admin.execute('PAUSE prod');
    await admin.execute('MAINTENANCE ON prod');
    await admin.execute('RESUME');
    expect(reasons()[0]).toBe('cutover+pause+maintenance');
    await admin.execute('RESUME prod');
    await admin.execute('MAINTENANCE OFF prod');
    expect(reasons()[0]).toBe('cutover');
  });

  test('a database that a reload brings is held as well', async () => {
    await admin.execute('MAINTENANCE ON');
    ports.next = configOf('prod', 'brought');
    await admin.execute('RELOAD');
    expect(ports.proxy.gate('brought').reasons).toEqual(['maintenance']);
  });

  test('an unknown database is refused', async () => {
    await expect(admin.execute('PAUSE gone')).rejects.toMatchObject({ code: 'database_unknown', sqlstate: '3D000' });
  });

  test('SHOW MAINTENANCE says who waits and who still runs', async () => {
    await admin.execute('MAINTENANCE ON prod');
    await admin.execute('PAUSE');
    ports.proxy.gate('prod').pass(() => undefined);
    expect(await rowsOf('SHOW MAINTENANCE')).toEqual([
      {
        database: 'prod',
        reasons: 'maintenance, pause',
        maintenance: 'this database',
        pause: 'all',
        clients_waiting: '1',
        holders: 'client 4 app (psql) on server process 99 for 1235 ms',
      },
      { database: 'prod_new', reasons: 'pause', maintenance: null, pause: 'all', clients_waiting: '0', holders: '' },
    ]);
  });
});

describe('views', () => {
  const started = new Date(Date.now() - 90_061_007);
  const task = (id: number, ago: number, more: Partial<TaskRow> = {}): TaskRow => ({
    ...{
      id,
      kind: 'reshard',
      source: 'prod',
      destination: 'prod_new',
      reversed: false,
      status: 'running',
      phase: 'syncing data',
    },
    ...{ reason: null, startedAt: new Date(Date.now() - ago), updatedAt: new Date(), finishedAt: null, subtasks: [] },
    ...more,
  });

  test('SHOW TASKS: newest root first, each followed by its subtasks', async () => {
    const subtask = task(0, 10, { kind: 'replication', reversed: true, phase: 'replicating' });
    ports.rows.tasks.push(
      task(1, 5_000, { status: 'failed', reason: 'no space', finishedAt: new Date() }),
      task(3, 1_000, { subtasks: [subtask] }),
      task(2, 2_000, { kind: 'schema_sync', part: 'pre', status: 'finished', phase: '' }),
      task(4, 6_000, { status: 'cancelled', reason: 'stopped by an operator', finishedAt: new Date() }),
      task(5, 7_000, { status: 'cancelled', finishedAt: new Date() }),
    );
    const rows = await rowsOf('SHOW TASKS');
    expect(rows.map(({ id, scope, type, status, inner_status }) => [id, scope, type, status, inner_status])).toEqual([
      ['3', 'root', 'reshard prod -> prod_new', 'running', 'syncing data'],
      [null, 'subtask', 'replication prod -> prod_new (reverse)', 'running', 'replicating'],
      ['2', 'root', 'schema_sync(pre) prod -> prod_new', 'finished', ''],
      ['1', 'root', 'reshard prod -> prod_new', 'failed: no space', 'syncing data'],
      ['4', 'root', 'reshard prod -> prod_new', 'cancelled: stopped by an operator', 'syncing data'],
      ['5', 'root', 'reshard prod -> prod_new', 'cancelled', 'syncing data'],
    ]);
    expect(Object.keys(rows[0] ?? {}).join(' ')).toBe(
      'id scope type status inner_status started_at updated_at elapsed elapsed_ms',
    );
  });

  test('SHOW TASKS: a finished task does not go on counting', async () => {
    ports.rows.tasks.push(task(1, 0, { startedAt: started, finishedAt: new Date(started.getTime() + 90_061_007) }));
    expect(await rowsOf('SHOW TASKS')).toMatchObject([{ elapsed: '1d 01:01:01:007', elapsed_ms: '90061007' }]);
  });

  test('SHOW REPLICATION_SLOTS', async () => {
    const slot = { host: 'h', port: 5432, databaseName: 'd', name: 's', copyData: false };
    ports.rows.slots.push(
      {
        ...{ ...slot, lsn: '1/A0', lagBytes: 1_572_864, retainedBytes: 20_000_000_000 },
        lastTransactionAt: new Date(Date.now() - 3_000),
      },
      { ...slot, lsn: null, lagBytes: null, retainedBytes: null, lastTransactionAt: null },
    );
    const rows = await rowsOf('SHOW REPLICATION_SLOTS');
    expect(rows[0]).toMatchObject({ port: '5432', lsn: '1/A0', lag: '1.50 MB', lag_bytes: '1572864', copy_data: 'f' });
    expect(rows.map((row) => row.alarm)).toEqual(['retained WAL is beyond cutover_retained_wal_limit', null]);
    expect(Number(rows[0]?.last_transaction_ms)).toBeGreaterThanOrEqual(3_000);
    expect(rows[1]).toMatchObject({
      lsn: null,
      lag: null,
      lag_bytes: null,
      last_transaction: null,
      last_transaction_ms: null,
    });
  });

  test('SHOW TABLE_COPIES', async () => {
    const startedAt = new Date(Date.now() - 2_000);
    const copy = { schema: 'public', table: 't', startedAt, sql: 'COPY …', stream: 'cutover_a_1_forward' };
    ports.rows.copies.push(
      { ...copy, rows: 1_234_567, bytes: 2_048, expectedRows: 2_469_134 },
      { ...copy, rows: 0, bytes: 0, expectedRows: null },
    );
    const [running, waiting] = await rowsOf('SHOW TABLE_COPIES');
    expect(running).toMatchObject({
      status: 'running',
      rows: '1234567',
      rows_human: '1,234,567',
      bytes_human: '2.00 KB',
    });
    expect(running?.bytes_per_sec_human).toMatch(/^\d+\.\d\d (B|KB)\/s$/);
    expect(running).toMatchObject({ percent: '50.0', time_left: expect.stringMatching(/2/) as string });
    expect(Number(running?.time_left_ms)).toBeGreaterThanOrEqual(2_000);
    expect(waiting).toMatchObject({ status: 'waiting', bytes_per_sec: '0', percent: null, time_left_ms: null });
    expect(await columnsOf('SHOW TABLE_COPIES')).toBe(
      'schema table status rows rows_human bytes bytes_human bytes_per_sec bytes_per_sec_human elapsed elapsed_ms sql stream percent time_left time_left_ms',
    );
  });

  test('SHOW CUTOVERS: newest first, every step with its milliseconds', async () => {
    const row = {
      taskId: 7,
      database: 'prod',
      peer: 'prod_new',
      heading: 'forward',
      startedAt: new Date(),
      stepMs: {},
    } as const;
    ports.rows.cutovers.push(
      { ...row, epoch: 1, outcome: 'aborted', reason: 'a client held a transaction', pausedMs: 1_000 },
      {
        ...row,
        epoch: 2,
        outcome: 'committed',
        reason: null,
        pausedMs: 24.5678,
        stepMs: { sealSource: 3.21, awaitParity: 0.4 },
      },
    );
    const [second, first] = await rowsOf('SHOW CUTOVERS');
    expect(second).toMatchObject({
      ...{ epoch: '2', outcome: 'committed', paused_ms: '24.568', seal_source_ms: '3.210', await_parity_ms: '0.400' },
      resume_traffic_ms: null,
    });
    expect(first).toMatchObject({ epoch: '1', reason: 'a client held a transaction' });
  });

  test('SHOW EVENTS asks for one task or all', async () => {
    ports.rows.events.push({ at: started, taskId: 7, stream: 's', sequence: 0, type: 'TaskStarted', data: { a: 1 } });
    expect(await rowsOf('SHOW EVENTS 7')).toMatchObject([
      { at: formatTime(started), event: 'TaskStarted', data: '{"a":1}' },
    ]);
    await admin.execute('SHOW EVENTS');
    expect(ports.calls).toEqual(['events [7]', 'events [null]']);
    await expect(admin.execute('SHOW EVENTS x')).rejects.toMatchObject({ code: 'admin_syntax' });
  });

  test('the columns of the pool views are those of PgDog, in its order', async () => {
    expect(await columnsOf('SHOW POOLS')).toBe(
      'id database user addr port shard role cl_waiting sv_idle sv_active sv_idle_xact sv_total maxwait maxwait_us pool_mode ' +
        'paused banned healthy errors re_synced out_of_sync force_closed online schema_admin',
    );
    expect(await columnsOf('SHOW CLIENTS')).toBe(
      'id user database addr port state replication connect_time last_request queries transactions transactions_2pc wait_time ' +
        'query_time transaction_time bytes_received bytes_sent errors application_name locked prepared_statements',
    );
    expect(await columnsOf('SHOW SERVERS')).toBe(
      'pool_id database user addr port state connect_time request_time remote_pid client_id transactions queries rollbacks ' +
        'prepared_statements healthchecks errors bytes_received bytes_sent last_sent last_received age application_name',
    );
    const counters = [
      ...['xact_count', 'xact_2pc_count', 'query_count', 'server_assignment_count', 'received', 'sent', 'xact_time'],
      ...['idle_xact_time', 'query_time', 'wait_time', 'server_parse_count', 'bind_count', 'close_count', 'errors'],
      ...['cleaned', 'rollbacks', 'connect_time', 'connect_count', 'reads', 'writes', 'auth_attempts', 'rows_inserted'],
      ...['rows_updated', 'rows_deleted'],
    ];
    expect(await columnsOf('SHOW STATS')).toBe(
      [
        'database user addr port shard role',
        ...['total_', 'avg_'].flatMap((prefix) => counters.map((name) => prefix + name)),
      ].join(' '),
    );
  });

  test('the values of the pool views stand under their columns', async () => {
    const place = { database: 'prod', user: 'app', host: '10.0.0.1', port: 5432, shard: 0, role: 'primary' };
    ports.rows.pools.push({
      ...{ ...place, id: 1, clientsWaiting: 2, serversIdle: 3, serversActive: 4, serversIdleInTransaction: 5 },
      ...{ longestWaitMs: 1_234.567, poolerMode: 'transaction', paused: true, ban: null, errors: 6 },
      replication: { lagMs: 12.4, lagBytes: 300, lsn: 0x1_0a00_00ffn, lsnAgeMs: 1_500.2, recovering: true },
    });
    expect(await rowsOf('SHOW POOLS')).toMatchObject([
      {
        addr: '10.0.0.1',
        sv_total: '12',
        maxwait: '1',
        maxwait_us: '234567',
        paused: 't',
        healthy: 't',
        schema_admin: 't',
      },
    ]);
    expect(await columnsOf('SHOW REPLICATION')).toBe(
      'id database user addr port shard role replica_lag pg_lsn lsn_age pg_is_in_recovery replica_lag_bytes',
    );
    expect(await rowsOf('SHOW REPLICATION')).toMatchObject([
      { replica_lag: '12', pg_lsn: '1/A0000FF', lsn_age: '1500', pg_is_in_recovery: 't', replica_lag_bytes: '300' },
    ]);
    ports.rows.stats.push({
      ...{ ...place, transactions: 10, queries: 20, serverAssignments: 5, bytesReceived: 100, bytesSent: 200 },
      ...{
        transactionMs: 50,
        queryMs: 40,
        waitMs: 10,
        parses: 1,
        binds: 2,
        errors: 3,
        rollbacks: 4,
        sharedReads: 7,
        connects: 5,
        connectMs: 6,
      },
    });
    expect(await rowsOf('SHOW STATS')).toMatchObject([
      {
        total_xact_count: '10',
        total_xact_time: '50.000',
        avg_xact_time: '5.000',
        avg_wait_time: '2.000',
        total_writes: '0',
      },
    ]);
  });

  test('SHOW CLIENTS with columns keeps those that tell the clients apart', async () => {
    expect(await columnsOf('SHOW CLIENTS state, errors')).toBe('user database addr port state errors');
    expect(await columnsOf('SHOW CLIENTS tls')).toBe('user database addr port tls');
    await expect(admin.execute('SHOW CLIENTS stat')).rejects.toMatchObject({ remedy: 'Did you mean state?' });
  });

  test('SHOW CONFIG has no password in it', async () => {
    const { rows } = await admin.execute('SHOW CONFIG');
    expect(JSON.stringify(rows)).not.toContain('hunter2');
    expect(rows).toContainEqual(['checkout_timeout', '5000']);
    expect(rows).toContainEqual(['query_timeout', 'default']);
    expect(fingerprint(ports.proxy.config)).not.toContain('hunter2');
  });

  test('SHOW LISTS and SHOW VERSION', async () => {
    expect(await rowsOf('SHOW LISTS')).toMatchObject([{ databases: '2', users: '1', used_servers: '0' }]);
    expect(await rowsOf('SHOW VERSION')).toEqual([{ version: 'Cutover v0.1.0' }]);
  });

  test('any other SHOW answers an empty value, and says what may have been meant', async () => {
    expect(await admin.execute('SHOW TASK')).toEqual({
      tag: 'SHOW',
      columns: [{ name: 'task', type: 'text' }],
      rows: [['']],
      notices: ['there is no view "task", did you mean "tasks"?'],
    });
    expect(await rowsOf('SHOW server_version')).toEqual([{ server_version: '0.1.0' }]);
    expect(await rowsOf('SHOW TRANSACTION ISOLATION LEVEL')).toEqual([{ 'transaction isolation level': '' }]);
  });
});

test('times, durations, sizes and counts are written like PgDog writes them', () => {
  expect(formatTime(new Date('2026-11-24T19:30:42.007Z'))).toMatch(/^2026-11-2\d \d\d:\d\d:42\.007 [+-]\d\d:\d\d$/);
  expect([0, 61_001, 3_600_000, 172_800_000, -5].map(formatDuration)).toEqual([
    '00:00:00:000',
    '00:01:01:001',
    '01:00:00:000',
    '2d 00:00:00:000',
    '00:00:00:000',
  ]);
  expect([0, 1, 1023, 1024, 12_939_428, 1024 ** 5].map(formatBytes)).toEqual([
    '0.00 B',
    '1.00 B',
    '1023.00 B',
    '1.00 KB',
    '12.34 MB',
    '1024.00 TB',
  ]);
  expect(formatCount(1_234_567)).toBe('1,234,567');
});
