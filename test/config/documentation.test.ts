/** One task: docs/configuration.md names every key, and says of each what really happens to it. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { showConfig } from '../../src/admin/show-config.js';
import { parseConfig } from '../../src/config/load.js';
import { CONFIG_FILE, IGNORED, USERS_FILE } from '../../src/config/schema.js';
import { SHARDING_TABLES } from '../../src/config/sharding-schema.js';

const DOCUMENT = readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8');
const TABLES = ['general', 'databases', 'users', 'admin', 'nodes', 'temporal', 'replication', 'tcp'];
const VERDICTS = ['works', 'is refused', 'has no effect'] as const;
type Verdict = (typeof VERDICTS)[number];

/** `general.port works`, as the document says it. */
function documented(): string[] {
  return DOCUMENT.split(/^#+ /m).flatMap((section) => {
    const [heading = '', ...lines] = section.split('\n');
    const match = /^`\[+(\w+)\]+` (.+)$/.exec(heading);
    if (!match || !VERDICTS.includes(match[2] as Verdict)) return [];
    const [, table = '', verdict = ''] = match;
    const list = verdict === 'has no effect' ? (lines.join(' ').match(/`\w+`/g) ?? []) : lines.flatMap(firstCell);
    return list.map((key) => `${table}.${key.replaceAll('`', '')} ${verdict}`);
  });
}

function firstCell(line: string): string[] {
  const match = /^\| `(\w+)` \|/.exec(line);
  return match?.[1] === undefined ? [] : [match[1]];
}

/** The same, as the schema has it. */
function known(): string[] {
  return [...TABLES, ...Object.keys(SHARDING_TABLES)].flatMap((table) => {
    const schema =
      table === 'users' ? USERS_FILE.shape.users : CONFIG_FILE.shape[table as keyof typeof CONFIG_FILE.shape];
    return Object.entries(shapeOf(schema)).map(([key, value]) => `${table}.${key} ${verdictOf(table, key, value)}`);
  });
}

function shapeOf(schema: unknown): Readonly<Record<string, unknown>> {
  if (schema instanceof z.ZodOptional) return shapeOf(schema.unwrap());
  if (schema instanceof z.ZodArray) return shapeOf(schema.element);
  return schema instanceof z.ZodObject ? schema.shape : {};
}

function verdictOf(table: string, key: string, schema: unknown): Verdict {
  if (IGNORED[table]?.has(key) === true) return 'has no effect';
  const inner: unknown = schema instanceof z.ZodOptional ? schema.unwrap() : schema;
  return inner instanceof z.ZodLiteral || inner instanceof z.ZodNever ? 'is refused' : 'works';
}

test('every key is in the document with its verdict, and no other key', () => {
  expect(documented().sort()).toEqual(known().sort());
});

test('every table without an effect is in the document', () => {
  for (const table of IGNORED[''] ?? []) expect(DOCUMENT).toMatch(new RegExp(`\`\\[+${table}\\]+\``));
});

test('the defaults in the document are those in force', () => {
  const config = parseConfig({ file: 'c', text: '' }, { file: 'u', text: '' }, { environment: {} });
  const inForce = new Map(showConfig(config).rows.map(([name, value]) => [name, value]));
  const [, section = ''] = DOCUMENT.split('### `[general]` works');
  const rows = (section.split('###')[0] ?? '').split('\n').map((line) => line.split('|').map((cell) => cell.trim()));
  const defaults = rows.flatMap(([, key = '', value = '']) =>
    key.startsWith('`') && value !== '' ? [[key, value] as const] : [],
  );
  expect(defaults.length).toBeGreaterThan(25);
  for (const [key, value] of defaults) {
    const said = value === 'none' ? 'default' : value.replaceAll('`', '');
    expect(`${key} ${inForce.get(key.replaceAll('`', '')) ?? 'missing'}`).toBe(`${key} ${said}`);
  }
});
