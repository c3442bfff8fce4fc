/** One task: rows never go to a shard by a misread rule: what the sharding tables say is read exactly or refused. */
import { describe, expect, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import { fingerprint } from '../../src/config/fingerprint.js';
import { parseConfig } from '../../src/config/load.js';
import { swapNames } from '../../src/config/swap.js';
import { swapText } from '../../src/config/swap-text.js';
import { CutoverError } from '../../src/errors/errors.js';
import { ruleOf, schemeOf, unusedEntries } from '../../src/sharding/scheme.js';

/** Twelve lines: a database with two shards, and one with one. */
const DATABASES = `[[databases]]
name = "prod"
host = "a"
[[databases]]
name = "prod"
host = "b"
shard = 1
[[databases]]
name = "next"
host = "c"

# from here on the test's own rows
`;
const FIRST_LINE = 13;
const TABLE = '[[sharded_tables]]\ndatabase = "prod"\ncolumn = "tenant_id"\n';
const MAPPING = '[[sharded_mappings]]\ndatabase = "prod"\ncolumn = "tenant_id"\n';

function load(rows: string): Config {
  const options = { environment: {} };
  return parseConfig({ file: 'pgdog.toml', text: DATABASES + rows }, { file: 'users.toml', text: '' }, options);
}

function failure(rows: string): string {
  try {
    load(rows);
  } catch (error) {
    if (error instanceof CutoverError) return error.message;
    throw error;
  }
  throw new Error('it loaded');
}

function warnings(rows: string): string {
  return load(rows).warnings.join('\n');
}

function rule(rows: string, schema: string, name: string, ...columns: string[]) {
  return ruleOf(schemeOf(load(rows), 'prod'), { schema, name, columns });
}

const HASHED = { kind: 'sharded', column: 'tenant_id', type: 'bigint', mapping: { kind: 'hash', hasher: 'postgres' } };

describe('which rule a table follows', () => {
  test('a row without a table name is for every table with the column, in every schema', () => {
    expect(rule(TABLE, 'public', 'orders', 'id', 'tenant_id')).toEqual(HASHED);
    expect(rule(TABLE, 'other', 'users', 'tenant_id')).toEqual(HASHED);
    expect(rule(TABLE, 'public', 'countries', 'id')).toEqual({ kind: 'omnisharded', sticky: false });
  });

  test('a row of another database does not count', () => {
    expect(rule(TABLE.replace('prod', 'next'), 'public', 'orders', 'tenant_id').kind).toBe('omnisharded');
  });

  test('a row with the name of the table comes before one by column alone, wherever it stands', () => {
    const named = '[[sharded_tables]]\ndatabase = "prod"\nname = "tenants"\ncolumn = "id"\ndata_type = "uuid"\n';
    expect(rule(TABLE + named, 'public', 'tenants', 'id', 'tenant_id')).toMatchObject({ column: 'id', type: 'uuid' });
    expect(rule(TABLE + named, 'public', 'users', 'id', 'tenant_id')).toEqual(HASHED);
  });

  test('a schema limits a row to that schema', () => {
    const limited = `${TABLE}schema = "sales"\n`;
    expect(rule(limited, 'sales', 'orders', 'tenant_id').kind).toBe('sharded');
    expect(rule(limited, 'public', 'orders', 'tenant_id').kind).toBe('omnisharded');
  });

  test('a table that is omnisharded and sharded is omnisharded', () => {
    const both = `${TABLE}[[omnisharded_tables]]\ndatabase = "prod"\ntables = ["settings", "sales.prices"]\nsticky = true\n`;
    expect(rule(both, 'public', 'settings', 'tenant_id')).toEqual({ kind: 'omnisharded', sticky: true });
    expect(rule(both, 'sales', 'prices', 'tenant_id').kind).toBe('omnisharded');
    expect(rule(both, 'public', 'prices', 'tenant_id').kind).toBe('sharded');
  });

  test('a schema on one shard comes before the columns of its tables, and the row for all others after its own', () => {
    const schemas = `${TABLE}[[sharded_schemas]]\ndatabase = "prod"\nall = true\n[[sharded_schemas]]\ndatabase = "prod"\nname = "eu"\nshard = 1\n`;
    expect(rule(schemas, 'eu', 'orders', 'tenant_id')).toEqual({ kind: 'shard', shard: 1 });
    expect(rule(schemas, 'us', 'orders', 'tenant_id')).toEqual({ kind: 'schema-all' });
    expect(warnings(schemas)).toContain('takes every schema: [[sharded_tables]] has no effect there');
  });

  test('names are folded as SQL folds them', () => {
    const folded = '[[sharded_tables]]\ndatabase = "prod"\nname = "Orders"\ncolumn = "TENANT_ID"\n';
    expect(rule(folded, 'public', 'orders', 'tenant_id').kind).toBe('sharded');
    const quoted = `[[sharded_tables]]\ndatabase = "prod"\nname = '"Or""ders"'\ncolumn = "ÄREA"\n`;
    expect(rule(quoted, 'public', 'Or"ders', 'Ärea').kind).toBe('sharded');
    expect(rule(quoted, 'public', 'or"ders', 'Ärea').kind).toBe('omnisharded');
  });

  test('a row that no table follows is found', () => {
    const scheme = schemeOf(load(TABLE), 'prod');
    expect(unusedEntries(scheme, [{ schema: 'public', name: 'users', columns: ['tenant_id'] }])).toEqual([]);
    expect(unusedEntries(scheme, [{ schema: 'public', name: 'users', columns: ['tenantid'] }])).toHaveLength(1);
  });

  test("the number of shards is the database's", () => {
    expect(schemeOf(load(''), 'prod').shards).toBe(2);
    expect(schemeOf(load(''), 'next').shards).toBe(1);
  });
});

describe('a mapping', () => {
  const mapping = {
    kind: 'values',
    lists: [{ values: [1n, 9_223_372_036_854_775_807n], shard: 1 }],
    ranges: [
      { start: null, end: 100n, shard: 0 },
      { start: 100n, end: 200n, shard: 1 },
    ],
    default: 0,
  };

  test('is read from its row', () => {
    const row = `${TABLE}mapping = [
      { values = [1, 9223372036854775807], shard = 1 },
      { end = 100, shard = 0 }, { start = 100, end = 200, shard = 1 }, { shard = 0 } ]\n`;
    expect(rule(row, 'public', 'orders', 'tenant_id')).toMatchObject({ mapping });
    expect(warnings(row)).not.toContain('no default');
  });

  test('is read from rows of its own, the old form, which is named in a warning', () => {
    const rows = [
      'kind = "list"\nvalues = [1, 9223372036854775807]\nshard = 1\n',
      'kind = "range"\nend = 100\nshard = 0\n',
      'kind = "range"\nstart = 100\nend = 200\nshard = 1\n',
      'kind = "default"\nshard = 0\n',
    ];
    const text = TABLE + rows.map((row) => MAPPING + row).join('');
    expect(rule(text, 'public', 'orders', 'tenant_id')).toMatchObject({ mapping });
    expect(warnings(text)).toContain('[[sharded_mappings]] is the old form');
  });

  test('without a default says that some rows have no shard', () => {
    expect(warnings(`${TABLE}mapping = [{ values = [1], shard = 1 }]\n`)).toContain(
      '[[sharded_tables]] row 1 has no default: a row whose "tenant_id" is NULL or in none of its places has no shard',
    );
  });

  test('keeps texts and uuids in the form in which they are compared', () => {
    const uuid = `${TABLE}data_type = "uuid"\nmapping = [{ values = ["{550E8400E29B41D4A716446655440000}"], shard = 1 }]\n`;
    expect(rule(uuid, 'public', 'orders', 'tenant_id')).toMatchObject({
      mapping: { lists: [{ values: ['550e8400-e29b-41d4-a716-446655440000'] }] },
    });
    const text = `${TABLE}data_type = "varchar"\nmapping = [{ start = "a", end = "é", shard = 1 }]\n`;
    expect(rule(text, 'public', 'orders', 'tenant_id')).toMatchObject({
      mapping: { ranges: [{ start: 'a', end: 'é' }] },
    });
  });
});

describe('a wrong row says file, line, key and what was meant', () => {
  const mapped = (places: string, more = ''): string => `${TABLE}${more}mapping = [\n${places}\n]\n`;
  const uuid = '"550e8400-e29b-41d4-a716-446655440000"';
  test.each([
    [
      'a misspelt database',
      TABLE.replace('prod', 'prdo'),
      1,
      '[[databases]] row has the name "prdo", did you mean "prod"?',
    ],
    [
      'a misspelt key',
      `${TABLE}hahser = "sha1"`,
      3,
      'unknown key "hahser" in [[sharded_tables]], did you mean "hasher"?',
    ],
    ['a misspelt key of a mapping', mapped('{ vlaues = [1], shard = 0 }'), 4, 'did you mean "values"?'],
    ['a misspelt hasher', `${TABLE}hasher = "postgre"`, 3, 'did you mean "postgres"?'],
    ['vectors', `${TABLE}data_type = "vector"`, 3, 'sharding by vector is not implemented'],
    ['centroids', `${TABLE}centroids_path = "x"`, 3, 'rows would go to other shards'],
    ['a lookup', `${TABLE}lookup_query = "x"`, 3, 'sharding by lookup is not implemented'],
    ['a name that needs quotes', `${TABLE}name = "my table"`, 3, 'write it in double quotes inside the quotes'],
    ['a dotted name', `${TABLE}name = "public.users"`, 3, 'the schema has a key of its own'],
    [
      'a second row for one table',
      TABLE + TABLE.replace('tenant_id', 'Tenant_ID'),
      3,
      'a second row for the same table',
    ],
    ['an empty mapping', `${TABLE}mapping = []`, 3, '"mapping" is empty'],
    ['an empty list', mapped('{ values = [], shard = 0 }'), 4, '"values" is empty'],
    [
      'a shard that is not there',
      mapped('{ shard = 2 }'),
      4,
      'shard 2 does not exist: database "prod" has shards 0 to 1',
    ],
    [
      'an inverted range',
      mapped('{ start = 9, end = 1, shard = 0 }'),
      4,
      'from 9 on and below 1, did you exchange them?',
    ],
    ['an empty range', mapped('{ start = 9, end = 9, shard = 0 }'), 4, 'the end itself is not part of the range'],
    [
      'ranges that overlap',
      mapped('{ end = 10, shard = 0 },\n{ start = 9, shard = 1 }'),
      5,
      'the range from 9 without an end overlaps the range without a start to 10',
    ],
    [
      'one value in two lists',
      mapped('{ values = [1], shard = 0 },\n{ values = [2,\n1], shard = 1 }'),
      6,
      '1 is listed twice',
    ],
    [
      'one uuid in two lists',
      mapped(`{ values = [${uuid}, ${uuid.toUpperCase()}], shard = 0 }`, 'data_type = "uuid"\n'),
      5,
      'is listed twice',
    ],
    ['two defaults', mapped('{ shard = 0 },\n{ shard = 1 }'), 5, 'a second default'],
    ['a list that is a range as well', mapped('{ values = [1], end = 2, shard = 0 }'), 4, 'write two'],
    ['an integer in quotes', mapped('{ values = ["1"], shard = 0 }'), 4, 'leave the quotes away'],
    [
      'a text for an integer',
      mapped('{ start = "a", shard = 0 }'),
      4,
      'expected an integer of 64 bits, or another "data_type"',
    ],
    ['a fraction', mapped('{ start = 1.5, shard = 0 }'), 4, 'expected an integer or a text'],
    [
      'an integer beyond 64 bits',
      mapped('{ start = 9223372036854775808, shard = 0 }'),
      4,
      'expected an integer of 64 bits',
    ],
    [
      'an integer for a text',
      mapped('{ start = 1, shard = 0 }', 'data_type = "varchar"\n'),
      5,
      'expected a text in quotes',
    ],
    ['a text for a uuid', mapped('{ start = "1", shard = 0 }', 'data_type = "uuid"\n'), 5, 'expected a uuid'],
    [
      'a mapping in both forms',
      `${mapped('{ shard = 0 }')}${MAPPING}kind = "default"\nshard = 0`,
      3,
      'keep one of the two',
    ],
    [
      'the old form for no row',
      `${TABLE}${MAPPING}table = "x"\nkind = "default"\nshard = 0`,
      3,
      'no [[sharded_tables]] row has this',
    ],
    [
      'the old form with another kind',
      `${TABLE}${MAPPING}kind = "range"\nshard = 0`,
      6,
      'kind "range" needs "start" or "end"',
    ],
    [
      'a schema on one shard and on all',
      '[[sharded_schemas]]\ndatabase = "prod"\nshard = 0\nall = true',
      0,
      'write one of them',
    ],
    ['a schema on no shard', '[[sharded_schemas]]\ndatabase = "prod"\nname = "x"', 0, 'write one of them'],
    [
      'a schema on a shard that is not there',
      '[[sharded_schemas]]\ndatabase = "next"\nshard = 1',
      2,
      'has only shard 0',
    ],
    [
      'two rows for one schema',
      '[[sharded_schemas]]\ndatabase = "prod"\nshard = 0\n'.repeat(2),
      3,
      'a second row for the same schema',
    ],
    [
      'an omnisharded table that is no name',
      '[[omnisharded_tables]]\ndatabase = "prod"\ntables = ["a", "b c"]',
      2,
      'expected "table" or',
    ],
    ['a coordinator that is not there', '[sharding]\ncoordinator = "nxt"', 1, 'did you mean "next"?'],
    ['a coordinator that is sharded', '[sharding]\ncoordinator = "prod"', 1, 'is sharded itself'],
  ])('%s', (_, rows, line, problem) => {
    const message = failure(rows);
    expect(message).toContain(problem);
    expect(message).toContain(`pgdog.toml:${String(FIRST_LINE + line)}: `);
  });
});

describe('a swap of two names', () => {
  const rows = `${TABLE}mapping = [{ values = [1], shard = 1 }, { shard = 0 }]\n[sharding]\ncoordinator = "next" # coordinates\n`;

  test('takes the rules along, in memory and in the file alike', () => {
    const swapped = swapNames(load(rows), 'prod', 'next');
    expect(swapped.sharding.tables.map((entry) => entry.database)).toEqual(['next']);
    expect(swapped.sharding.coordinator).toBe('prod');
    const text = swapText(DATABASES + rows, 'config', 'prod', 'next');
    expect(text).toContain('[[sharded_tables]]\ndatabase = "next"');
    expect(text).toContain('coordinator = "prod" # coordinates');
  });

  test('two nodes with different mappings differ', () => {
    expect(fingerprint(load(rows))).toBe(fingerprint(load(rows)));
    expect(fingerprint(load(rows))).not.toBe(fingerprint(load(rows.replace('[1]', '[2]'))));
  });
});
