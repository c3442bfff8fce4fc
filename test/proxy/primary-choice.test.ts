/** One task: the table by which the primary of an open set is chosen, row by row. */
import { expect, test } from 'vitest';
import { chosenPrimary, withRoles, type SaidRole } from '../../src/proxy/primary-choice.js';
import { configFor } from './support.js';

const ROLES: readonly SaidRole[] = ['primary', 'standby', 'silent'];

test.each([
  ['a', { a: 'primary', b: 'standby' }, 'a'],
  ['a', { a: 'primary', b: 'primary' }, 'a'],
  ['a', { a: 'silent', b: 'primary' }, 'b'],
  ['a', { a: 'standby', b: 'primary' }, 'b'],
  ['a', { a: 'silent', b: 'primary', c: 'primary' }, null],
  ['a', { a: 'standby', b: 'primary', c: 'primary' }, null],
  ['a', { a: 'silent', b: 'standby' }, 'a'],
  ['a', { a: 'standby', b: 'standby' }, null],
  ['a', { a: 'standby', b: 'silent' }, null],
  [null, { a: 'primary', b: 'standby' }, 'a'],
  [null, { a: 'primary', b: 'primary' }, null],
  [null, { a: 'silent', b: 'standby' }, null],
  ['gone', { a: 'primary', b: 'standby' }, 'a'],
] as const)('after %o, with %o the primary is %o', (before, said, after) => {
  expect(chosenPrimary(new Map(Object.entries(said)), before)).toBe(after);
});

test('whatever is said, a server that says it is a standby is never chosen', () => {
  for (const a of ROLES)
    for (const b of ROLES)
      for (const before of [null, 'a', 'b']) {
        const said = new Map([
          ['a', a],
          ['b', b],
        ]);
        const chosen = chosenPrimary(said, before);
        if (chosen !== null) expect(said.get(chosen)).not.toBe('standby');
      }
});

test('a row of the role auto that stands alone, and rows with fixed roles, are left as they are', () => {
  const row = { name: 'prod', host: 'a', port: 1, shard: 0, databaseName: 'x' };
  const config = {
    ...configFor([]),
    databases: [
      { ...row, role: 'auto' as const },
      { ...row, name: 'other', role: 'primary' as const },
    ],
  };
  expect(withRoles(config, () => 'a:1')).toBe(config);
});
