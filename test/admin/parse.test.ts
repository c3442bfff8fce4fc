/** One task: a command means what was typed, in any spacing, case and quoting, and an unknown one is an error that helps. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseCommand } from '../../src/admin/parse.js';
import { quoteLiteral } from '../../src/postgres/connection.js';
import { CutoverError } from '../../src/errors/errors.js';

const move = { source: 'prod', destination: 'prod_new', publication: 'all_tables' };

test.each([
  ['RESHARD prod prod_new all_tables', { command: 'start', tag: 'RESHARD', request: { kind: 'reshard', ...move } }],
  [
    'reshard\tprod\n  prod_new   all_tables my_slot ;',
    { command: 'start', tag: 'RESHARD', request: { kind: 'reshard', ...move, slot: 'my_slot' } },
  ],
  [
    'COPY_DATA prod prod_new all_tables',
    { command: 'start', tag: 'COPY_DATA', request: { kind: 'copy_data', ...move } },
  ],
  [
    'REPLICATE prod prod_new all_tables',
    { command: 'start', tag: 'REPLICATE', request: { kind: 'replication', ...move } },
  ],
  [
    'SCHEMA_SYNC pre prod prod_new all_tables',
    { command: 'start', tag: 'SCHEMA_SYNC', request: { kind: 'schema_sync', part: 'pre', ...move } },
  ],
  [
    'Schema_Sync CUTOVER prod prod_new all_tables',
    { command: 'start', tag: 'SCHEMA_SYNC', request: { kind: 'schema_sync', part: 'cutover', ...move } },
  ],
  [
    'RESHARD Prod "My ""New"" DB" prod-2.pub',
    {
      command: 'start',
      tag: 'RESHARD',
      request: { kind: 'reshard', source: 'Prod', destination: 'My "New" DB', publication: 'prod-2.pub' },
    },
  ],
  ['CUTOVER', { command: 'cutover', target: null, option: null }],
  ['CUTOVER 12', { command: 'cutover', target: { taskId: 12 }, option: null }],
  ['CUTOVER prod DRY RUN', { command: 'cutover', target: { name: 'prod' }, option: 'dry run' }],
  ['cutover dry run', { command: 'cutover', target: null, option: 'dry run' }],
  ['CUTOVER 12 REHEARSE', { command: 'cutover', target: { taskId: 12 }, option: 'rehearse' }],
  ['cutover rehearse', { command: 'cutover', target: null, option: 'rehearse' }],
  ['CUTOVER "rehearse"', { command: 'cutover', target: { name: 'rehearse' }, option: null }],
  ['CUTOVER "dry" dry run', { command: 'cutover', target: { name: 'dry' }, option: 'dry run' }],
  ['CUTOVER 12 ACCEPT LOSS', { command: 'cutover', target: { taskId: 12 }, option: 'accept loss' }],
  ['cutover accept loss', { command: 'cutover', target: null, option: 'accept loss' }],
  ['CUTOVER "accept"', { command: 'cutover', target: { name: 'accept' }, option: null }],
  ['VERIFY prod "New"', { command: 'verify', source: 'prod', destination: 'New' }],
  ['STOP_TASK 0', { command: 'stop_task', taskId: 0, save: false }],
  ['stop_task 12 save', { command: 'stop_task', taskId: 12, save: true }],
  ['RETIRE Prod_Old', { command: 'retire', database: 'Prod_Old' }],
  ['SHOW TASKS', { command: 'show', view: 'tasks', arguments: [] }],
  [
    'show Clients User, state application_name',
    { command: 'show', view: 'clients', arguments: ['User', 'state', 'application_name'] },
  ],
  ['SHOW CLIENTS user,state', { command: 'show', view: 'clients', arguments: ['user', 'state'] }],
  ['MAINTENANCE ON', { command: 'maintenance', on: true, database: null }],
  ['maintenance off Prod', { command: 'maintenance', on: false, database: 'Prod' }],
  ['PAUSE', { command: 'pause', database: null }],
  ['RESUME "on"', { command: 'resume', database: 'on' }],
  ['/* why not */ RELOAD -- now', { command: 'reload' }],
  ['RECONNECT', { command: 'reconnect' }],
  ['BAN 7', { command: 'ban', pool: 7 }],
  ['unban', { command: 'unban', pool: null }],
  ['SHUTDOWN;', { command: 'shutdown' }],
  ['PROBE postgres://u:p--w@h:1/d', { command: 'probe', url: 'postgres://u:p--w@h:1/d' }],
  ["SET query_timeout TO '5'", { command: 'set', name: 'query_timeout' }],
  ["SET DateStyle = 'ISO, MDY'", { command: 'set', name: 'DateStyle' }],
  [`CUTOVER_NODE state '{"database":"it''s"}'`, { command: 'node', method: 'state', json: '{"database":"it\'s"}' }],
])('%s', (statement, command) => {
  expect(parseCommand(statement)).toEqual(command);
});

describe('what is not a command', () => {
  test.each([
    ['RESHRD prod prod_new p', 'admin_syntax', 'Did you mean RESHARD?'],
    ['', 'admin_syntax', 'The commands are RESHARD'],
    ['  -- nothing\n', 'admin_syntax', 'The commands are'],
    ['"RELOAD"', 'admin_syntax', 'The commands are'],
    ['constructor', 'admin_syntax', 'The commands are'],
    ['RESHARD prod', 'admin_syntax', 'Usage: RESHARD <source> <destination> <publication> [<slot>]'],
    ['SCHEMA_SYNC both a b c', 'admin_syntax', 'Usage: SCHEMA_SYNC PRE|POST|CUTOVER'],
    ['CUTOVER 1 DRY', 'admin_syntax', 'Usage: CUTOVER'],
    ['CUTOVER 1 ACCEPT', 'admin_syntax', 'Usage: CUTOVER [<task_id>|<name>] [DRY RUN|REHEARSE|ACCEPT LOSS]'],
    ['CUTOVER ACCEPT LOSS 1', 'admin_syntax', 'Usage: CUTOVER'],
    ['CUTOVER 1 DRY RUN ACCEPT LOSS', 'admin_syntax', 'Usage: CUTOVER'],
    ['VERIFY prod', 'admin_syntax', 'Usage: VERIFY <source> <destination>'],
    ['VERIFY prod prod_new all_tables', 'admin_syntax', 'Usage: VERIFY'],
    ['STOP_TASK one', 'admin_syntax', 'Usage: STOP_TASK <task_id> [SAVE]'],
    ['STOP_TASK 12345678901234567890', 'admin_syntax', 'Usage: STOP_TASK <task_id> [SAVE]'],
    ['RELOAD now', 'admin_syntax', 'Usage: RELOAD'],
    ['RELOAD; RELOAD', 'admin_syntax', 'End a command with one ";".'],
    ['RETIRE "prod', 'admin_syntax', 'End a command'],
    ['CUTOVER 1 REHEARSE ACCEPT LOSS', 'admin_syntax', 'Usage: CUTOVER'],
    ['HEALTHCHECK 1', 'not_implemented', 'docs/admin-commands.md'],
    ['PAUSE app prod', 'not_implemented', 'docs/admin-commands.md'],
  ])('%s', (statement, code, remedy) => {
    let caught: unknown;
    try {
      parseCommand(statement);
    } catch (error) {
      caught = error;
    }
    expect(caught).toMatchObject({ code });
    expect((caught as CutoverError).remedy).toContain(remedy);
  });
});

test('a password in a mistyped command is not repeated', () => {
  for (const statement of [
    'postgres://u:hunter2@h/d',
    'PROBEE postgres://u:hunter2@h/d',
    'PROBE postgres://u:hunter2@h/d x',
  ]) {
    expect(() => parseCommand(statement)).toThrow(/^(?!.*hunter2).*$/is);
  }
});

/** Texts in which every second character means something to a parser. */
const difficult = fc.string({
  unit: fc.oneof(fc.constantFrom('"', "'", '\\', ';', '-', ' '), fc.string({ unit: 'grapheme', maxLength: 1 })),
});

test('any name arrives as it was quoted, and no text breaks the parser', () => {
  fc.assert(
    fc.property(difficult, fc.constantFrom('"', "'"), (name, quote) => {
      const quoted = quote + name.replaceAll(quote, quote + quote) + quote;
      expect(parseCommand(`RETIRE\n${quoted} ;`)).toEqual({ command: 'retire', database: name });
    }),
  );
  fc.assert(
    fc.property(difficult, (name) => {
      const json = JSON.stringify({ database: name });
      expect(parseCommand(`CUTOVER_NODE state ${quoteLiteral(json)}`)).toEqual({
        command: 'node',
        method: 'state',
        json,
      });
    }),
  );
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom('CUTOVER', ' ', '"', "'", ';', '--', '/*', '*/', '\n', ',', '1', 'é', '\\')),
      (parts) => {
        try {
          parseCommand(parts.join(''));
        } catch (error) {
          expect(error).toBeInstanceOf(CutoverError);
        }
      },
    ),
  );
});
