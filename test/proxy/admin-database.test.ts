/** One task: the admin database takes statements, answers rows or an error, and its session always goes on. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CutoverError } from '../../src/errors/errors.js';
import type { AdminHandler, Proxy } from '../../src/proxy/contract.js';
import { startProxy } from '../../src/proxy/proxy.js';
import { query, startupMessage, SYNC, TERMINATE } from '../../src/wire/frontend.js';
import { clientOf, configFor, proxyFor, RawClient } from './support.js';

const admin: AdminHandler = {
  execute: (statement) => {
    if (statement === 'FAIL')
      return Promise.reject(new CutoverError('same_database', { source: 'a', destination: 'a' }));
    if (statement === 'BREAK') return Promise.reject(new Error('a bug'));
    return Promise.resolve({
      tag: 'SHOW',
      columns: [
        { name: 'id', type: 'bigint' },
        { name: 'text', type: 'text' },
        { name: 'flag', type: 'bool' },
      ],
      rows: [
        ['1', statement, 't'],
        [null, '', null],
      ],
      notices: ['by the way'],
    });
  },
};
const login = { user: 'admin', password: 'admin secret' };

let shared: Proxy;
beforeAll(async () => {
  shared = await startProxy({ config: configFor([], { general: { authType: 'scram' } }), admin });
});
afterAll(() => shared.close(0));

test('rows come with their types, and notices before them', async () => {
  const client = await clientOf(shared, 'admin', login);
  const notices: unknown[] = [];
  client.on('notice', (notice) => notices.push(notice.message));
  const { rows, command } = await client.query('SHOW "MixedCase"');
  expect(rows).toEqual([
    { id: '1', text: 'SHOW "MixedCase"', flag: true },
    { id: null, text: '', flag: null },
  ]);
  expect(command).toBe('SHOW');
  expect(notices).toEqual(['by the way']);
});

test('a failed command is an ERROR with its SQLSTATE and hint, and the session goes on', async () => {
  const client = await clientOf(shared, 'admin', login);
  await expect(client.query('FAIL')).rejects.toMatchObject({
    code: '22023',
    hint: 'Name another database as destination.',
  });
  await expect(client.query('BREAK')).rejects.toMatchObject({ code: 'XX000', severity: 'ERROR' });
  expect((await client.query('SHOW x')).rows).toHaveLength(2);
});

test('the extended protocol is refused in words, and the session goes on', async () => {
  const client = await clientOf(shared, 'admin', login);
  await expect(client.query('SHOW $1', [1])).rejects.toMatchObject({
    code: '0A000',
    message: 'the admin database takes simple queries only',
  });
  expect((await client.query('SHOW x')).rows).toHaveLength(2);
});

test('a wrong admin password is refused like any other', async () => {
  await expect(clientOf(shared, 'admin', { ...login, password: 'wrong' })).rejects.toMatchObject({ code: '28P01' });
});

test('statements sent at once are answered one after the other', async () => {
  const proxy = await proxyFor({ config: configFor([]), admin });
  const raw = new RawClient(proxy);
  raw.send(startupMessage({ user: 'admin', database: 'admin' }));
  await raw.until('Z');
  raw.send(query('SHOW a'), query('FAIL'), SYNC, query('SHOW b'), TERMINATE);
  expect(raw.types(await raw.until('Z', 4))).toBe('NTDDCZEZZNTDDCZ');
  await expect.poll(() => raw.closed).toBe(true);
});
