/** One task: docs/admin-commands.md names every command, and the columns that each view really has. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { AdminDatabase } from '../../src/admin/handler.js';
import { parseCommand } from '../../src/admin/parse.js';
import { CutoverError } from '../../src/errors/errors.js';
import { fakePorts } from './fake-ports.js';

const DOCUMENT = readFileSync(new URL('../../docs/admin-commands.md', import.meta.url), 'utf8');
const VIEWS = [
  'TASKS',
  'REPLICATION_SLOTS',
  'TABLE_COPIES',
  'CUTOVERS',
  'EVENTS',
  'NODES',
  'SHARDS',
  'MAINTENANCE',
  'POOLS',
  'BANS',
  'REPLICATION',
  'CLIENTS',
  'SERVERS',
];

function errorOf(statement: string): CutoverError {
  try {
    parseCommand(statement);
  } catch (error) {
    if (error instanceof CutoverError) return error;
    throw error;
  }
  throw new Error(`${statement} was accepted`);
}

test('every command has a section, and every section a command', () => {
  const commands = errorOf('?').remedy.replace('The commands are ', '').replace('.', '').split(', ');
  const sections = [...DOCUMENT.matchAll(/^### `(\w+)`$/gm)].map((match) => match[1]);
  expect(sections.sort()).toEqual(commands.sort());
});

test('the usage in the document is the one in the hint', () => {
  for (const command of [
    'RESHARD',
    'COPY_DATA',
    'REPLICATE',
    'VERIFY',
    'STOP_TASK',
    'RETIRE',
    'MAINTENANCE',
    'PROBE',
    'CUTOVER_NODE',
  ]) {
    expect(DOCUMENT).toContain(`\`${errorOf(command).remedy.replace('Usage: ', '')}\``);
  }
});

test('the columns in the document are those of the views, in their order', async () => {
  const admin = new AdminDatabase(fakePorts());
  const described = [...DOCUMENT.matchAll(/^Columns of `([^`]+)`: ([\s\S]*?)\n\n/gm)];
  const statements = described.map((match) => match[1] ?? '');
  for (const view of VIEWS) expect(statements).toContain(`SHOW ${view}`);
  for (const [, statement = '', list = ''] of described) {
    const { columns } = await admin.execute(statement);
    expect(list.match(/\w+/g), statement).toEqual(columns.map(({ name }) => name));
  }
});

test('what is said not to be implemented says so itself', () => {
  for (const statement of ['HEALTHCHECK', 'SETUP SCHEMA', 'RESET PREPARED', 'RESET QUERY_CACHE']) {
    expect(errorOf(statement)).toMatchObject({ code: 'not_implemented', sqlstate: '0A000' });
  }
});
