/** One task: a worker in another process steers this node by the same methods, and by nothing else. */
import { beforeEach, describe, expect, test } from 'vitest';
import { AdminDatabase } from '../../src/admin/handler.js';
import { fakePorts, type FakePorts } from './fake-ports.js';

let ports: FakePorts;
let admin: AdminDatabase;

beforeEach(() => {
  ports = fakePorts();
  admin = new AdminDatabase(ports);
});

describe('CUTOVER_NODE', () => {
  const serving = { systemIdentifier: '7300', databaseOid: 16384 };
  const swap = { database: 'prod', peer: 'prod_new', epoch: 3, serving, saveConfig: true };
  const pause = {
    database: 'prod',
    peer: 'prod_new',
    epoch: 3,
    source: serving,
    destination: serving,
    leaseMs: 2000,
    drainMs: 1000,
    drainAction: 'abort',
  };

  test.each([
    ['state', { database: 'prod' }, 'state ["prod"]', { node: 'node', epochSeen: 3 }],
    ['prepare', swap, `prepare ${JSON.stringify([swap])}`, null],
    ['pause', pause, `pause ${JSON.stringify([pause])}`, { drained: true, waitedMs: 1.5 }],
    ['renew', { database: 'prod', epoch: 3, leaseMs: 2000 }, 'renew ["prod",3,2000]', true],
    ['swap', swap, `swap ${JSON.stringify([swap])}`, null],
    ['resume', { database: 'prod', epoch: 3, serving }, `resume ${JSON.stringify(['prod', 3, serving])}`, null],
  ])('%s is the method of the node', async (method, parameters, call, answer) => {
    const { columns, rows } = await admin.execute(`CUTOVER_NODE ${method} '${JSON.stringify(parameters)}'`);
    expect(columns).toEqual([{ name: 'result', type: 'text' }]);
    const result: unknown = JSON.parse(rows[0]?.[0] ?? '');
    if (typeof answer === 'object' && answer !== null) expect(result).toMatchObject(answer);
    else expect(result).toBe(answer);
    expect(ports.calls).toEqual([call]);
  });

  test.each([
    ['a method that is not one', `name '{}'`],
    ['no JSON', `state '{'`],
    ['a parameter that is missing', `state '{}'`],
    ['a parameter that no one asked for', `state '{"database":"prod","x":1}'`],
    ['an epoch that is not one', `renew '{"database":"prod","epoch":0,"leaseMs":1}'`],
  ])('%s is refused and nothing is called', async (_, command) => {
    await expect(admin.execute(`CUTOVER_NODE ${command}`)).rejects.toMatchObject({ code: 'admin_syntax' });
    expect(ports.calls).toEqual([]);
  });
});
