/** One task: what clients are told at login is one map where it is the same, and never that of a client who asked for something else. */
import { expect, test } from 'vitest';
import { ToldParameters } from '../../src/proxy/startup-settings.js';

test('clients that are told the same have one map, and whoever asked for something else has another', () => {
  const told = new ToldParameters();
  const reported = new Map([
    ['server_version', '18.0'],
    ['application_name', ''],
  ]);
  const first = told.for(reported, new Map([['application_name', 'shop']]));
  expect([...first]).toEqual([
    ['server_version', '18.0'],
    ['application_name', 'shop'],
  ]);
  expect(told.for(new Map(reported), new Map([['application_name', 'shop']]))).toBe(first);
  const other = told.for(reported, new Map([['application_name', 'batch']]));
  expect(other.get('application_name')).toBe('batch');
  expect(first.get('application_name')).toBe('shop');
  const upgraded = told.for(
    new Map([...reported, ['in_hot_standby', 'off']]),
    new Map([['application_name', 'batch']]),
  );
  expect([...upgraded.keys()]).toEqual(['server_version', 'application_name', 'in_hot_standby']);
});
