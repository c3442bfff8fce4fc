/** One task: PostgreSQL and this program never disagree about the shard of a row: hash, row filters, partitions, on real servers. */
import fc from 'fast-check';
import { beforeAll, afterAll, describe, expect, test } from 'vitest';
import { compareKeys, parseKey } from '../../src/config/key-values.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { shardOf } from '../../src/sharding/hash.js';
import {
  partitionClause,
  partitionProblem,
  partitionsOf,
  type IntegerType,
  type Partition,
} from '../../src/sharding/partition-sql.js';
import { CREATE_HASH_PARENTS, filterProblem, rowFilter, unplacedFilter } from '../../src/sharding/row-filter.js';
import type { KeyType, KeyValue, TableRule, ValueMapping } from '../../src/sharding/scheme.js';
import { freshDatabase, useClusters } from '../support/clusters.js';

const VALUES_PER_RUN = 500;
const HASH_RUNS = 6;
const MODULUS_MAX = 16;
const MAPPING_RUNS = 5;
const INTEGER_RUNS = 3;
const TYPES: readonly KeyType[] = ['bigint', 'varchar', 'uuid'];
const COLUMN_TYPES: Readonly<Record<KeyType, string>> = {
  bigint: 'bigint',
  varchar: 'text COLLATE "en-x-icu"',
  uuid: 'uuid',
};
const SQL_TYPES: Readonly<Record<KeyType, string>> = { bigint: 'bigint', varchar: 'text', uuid: 'uuid' };

// Every transaction here is rolled back.
const settings = { fsync: 'off' };
const clusters = useClusters({ older: { major: 15, settings }, newer: { major: 18, settings } });

/** Characters whose order differs between UTF-16, UTF-8 and dictionaries, and those that SQL has to quote. */
const character = fc.oneof(
  fc.constantFrom('a', 'A', 'b', 'é', '\u0001', "'", '\\', '"', ' ', '\uE000', '\uFFFD', '\u{10000}', '\u{1F600}'),
  fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }).filter((text) => text !== '\0'),
);
const texts = fc.string({ unit: character, maxLength: 40 });
const someInteger = fc.oneof(fc.bigInt({ min: -40n, max: 40n }), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }));
const uuids = fc.oneof(
  fc.uuid(),
  fc.constantFrom('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
);

function values(type: KeyType): fc.Arbitrary<KeyValue> {
  return { bigint: someInteger, varchar: texts, uuid: uuids }[type] as fc.Arbitrary<KeyValue>;
}

/** The same, few enough that lists, bounds and rows meet. */
function nearValues(type: KeyType): fc.Arbitrary<KeyValue> {
  const few: Record<KeyType, fc.Arbitrary<KeyValue>> = {
    bigint: fc.oneof(
      fc.bigInt({ min: -9n, max: 9n }),
      fc.constantFrom(-(2n ** 63n), 2n ** 63n - 1n, 2n ** 31n, -(2n ** 40n), 32_767n),
    ),
    varchar: fc.string({ unit: character, maxLength: 2 }),
    uuid: fc.oneof(
      fc.integer({ min: 0, max: 9 }).map((n) => `00000000-0000-0000-0000-00000000000${String(n)}`),
      uuids,
    ),
  };
  return few[type];
}

interface Case {
  readonly shards: number;
  readonly mapping: ValueMapping;
  readonly keys: readonly (KeyValue | null)[];
}

/** A mapping without contradictions: bounds cut the values into ranges, of which some are dropped; lists share no value. */
function cases(type: KeyType): fc.Arbitrary<Case> {
  return fc.integer({ min: 1, max: 5 }).chain((shards) => {
    const shard = fc.nat({ max: shards - 1 });
    const bounds = fc.uniqueArray(nearValues(type), { maxLength: 5 }).map((some) => some.sort(compareKeys));
    const owners = fc.array(fc.option(shard), { minLength: 6, maxLength: 6 });
    const lists = fc.uniqueArray(nearValues(type), { maxLength: 8 });
    const keys = fc.array(fc.option(fc.oneof(nearValues(type), values(type))), { maxLength: 20 });
    return fc
      .record({
        bounds,
        owners,
        lists,
        listOwners: fc.array(shard, { minLength: 3, maxLength: 3 }),
        fallback: fc.option(shard),
        keys,
      })
      .map((drawn): Case => ({
        shards,
        mapping: {
          kind: 'values',
          lists: listsOf(drawn.lists, drawn.listOwners),
          ranges: rangesOf(drawn.bounds, drawn.owners),
          default: drawn.fallback,
        },
        keys: [...drawn.keys, ...drawn.bounds, ...drawn.lists, null],
      }));
  });
}

function listsOf(listed: readonly KeyValue[], owners: readonly number[]): ValueMapping['lists'] {
  return owners
    .map((shard, index) => ({ shard, values: listed.filter((_, place) => place % owners.length === index) }))
    .filter((list) => list.values.length > 0);
}

function rangesOf(bounds: readonly KeyValue[], owners: readonly (number | null)[]): ValueMapping['ranges'] {
  if (bounds.length === 0) return [];
  return [null, ...bounds].flatMap((start, index) => {
    const shard = owners[index] ?? null;
    return shard === null ? [] : [{ start, end: bounds[index] ?? null, shard }];
  });
}

function ruleFor(type: KeyType, mapping: TableRule['mapping'] = { kind: 'hash', hasher: 'postgres' }): TableRule {
  return { kind: 'sharded', column: 'Te"nant', type, mapping };
}

describe.each(['older', 'newer'] as const)('the %s server', (name) => {
  let connection: Connection;

  beforeAll(async () => {
    const cluster = clusters[name];
    connection = await connect(cluster.endpoint(await freshDatabase(cluster)));
    await connection.query('CREATE SCHEMA cutover; SET search_path = public');
    // Twice: it may be run again.
    for (const text of [CREATE_HASH_PARENTS, CREATE_HASH_PARENTS]) await connection.query(text);
  });
  afterAll(() => connection.end());

  test.each(TYPES)('hashes every %s to the same shard, whatever their number', async (type) => {
    const parent = /'(cutover\.\w+)'/.exec(rowFilter(ruleFor(type), 0, 2))?.[1] ?? '';
    const holds = `SELECT count(*)::int AS all, count(*) FILTER (WHERE satisfies_hash_partition($1::regclass, modulus, remainder, key::${SQL_TYPES[type]}))::int AS agreed
      FROM unnest($2::text[], $3::int[], $4::int[]) AS t (key, modulus, remainder)`;
    const property = fc.asyncProperty(
      fc.array(values(type), { minLength: VALUES_PER_RUN, maxLength: VALUES_PER_RUN }),
      async (keys) => {
        const asked = keys.flatMap((key) =>
          Array.from({ length: MODULUS_MAX }, (_, index) => ({ key: key.toString(), shards: index + 1 })),
        );
        const shards = asked.map(({ key, shards: modulus }) => shardOf(ruleFor(type), key, modulus));
        const { rows } = await connection.query<{ all: number; agreed: number }>(holds, [
          parent,
          asked.map(({ key }) => key),
          asked.map(({ shards: modulus }) => modulus),
          shards,
        ]);
        expect(rows).toEqual([{ all: asked.length, agreed: asked.length }]);
      },
    );
    await fc.assert(property, { numRuns: HASH_RUNS });
  });

  test('reads a text as the same integer or uuid, or refuses it too', async () => {
    const integers = [
      '1',
      ' \t7\n',
      '-0',
      '+5',
      '007',
      '9223372036854775807',
      '-9223372036854775808',
      '9223372036854775808',
      '1.0',
      '1e2',
      '',
      '- 1',
      '1 2',
      '\u00A07',
    ];
    const newer = ['0x1F', '-0b11', '0o17', '1_000', '0x_1', '_1', '1_', '1__0', '0x', '0_1'];
    const uuid = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11';
    const uuidTexts = [
      uuid,
      uuid.toUpperCase(),
      `{${uuid}}`,
      uuid.replaceAll('-', ''),
      'a0ee-bc99-9c0b4ef8-bb6d-6bb9-bd38-0a11',
      `{${uuid}`,
      `${uuid}}`,
      ` ${uuid}`,
      'a0eebc-999c0b4ef8bb6d6bb9bd380a11',
      `${uuid}-`,
      '',
    ];
    for (const text of name === 'newer' ? [...integers, ...newer] : integers)
      expect([text, parseKey('bigint', text)?.toString()]).toEqual([text, await input('bigint', text)]);
    for (const text of uuidTexts)
      expect([text, parseKey('uuid', text) ?? undefined]).toEqual([text, await input('uuid', text)]);
  });

  test.each(TYPES)(
    'puts a row with a %s key into the partition, and through the row filter, of its shard',
    async (type) => {
      const property = fc.asyncProperty(cases(type), async ({ shards, mapping, keys }) => {
        await agreesOnRows(ruleFor(type, mapping), shards, keys, COLUMN_TYPES[type]);
      });
      await fc.assert(property, { numRuns: MAPPING_RUNS });
    },
  );

  test.each(['smallint', 'integer'] as const)(
    'takes bounds that a column of type %s has no room for',
    async (integerType) => {
      const property = fc.asyncProperty(cases('bigint'), async ({ shards, mapping, keys }) => {
        const bits = integerType === 'smallint' ? 16 : 32;
        const possible = keys.filter((key) => key === null || BigInt.asIntN(bits, BigInt(key)) === key);
        await agreesOnRows(ruleFor('bigint', mapping), shards, possible, integerType, integerType);
      });
      await fc.assert(property, { numRuns: INTEGER_RUNS });
    },
  );

  test.each(TYPES)(
    'puts a row with a hashed %s key into the partition, and through the row filter, of its shard',
    async (type) => {
      const property = fc.asyncProperty(
        fc.integer({ min: 1, max: 7 }),
        fc.array(fc.option(values(type)), { maxLength: 30 }),
        async (shards, keys) => {
          const columnType = type === 'varchar' ? 'varchar' : COLUMN_TYPES[type];
          await agreesOnRows(ruleFor(type), shards, [...keys, null], columnType);
        },
      );
      await fc.assert(property, { numRuns: HASH_RUNS });
    },
  );

  /** What the server reads from a text; undefined when it refuses it. */
  async function input(type: string, text: string): Promise<string | undefined> {
    const answer = await connection
      .query<{ value: string }>(`SELECT ($1::text)::${type}::text AS value`, [text])
      .catch(() => null);
    return answer?.rows[0]?.value;
  }

  /** Publications with the filters of all shards, and a table with the partitions, are made and asked about every key. */
  async function agreesOnRows(
    rule: TableRule,
    shards: number,
    keys: readonly (KeyValue | null)[],
    columnType: string,
    integerType?: IntegerType,
  ): Promise<void> {
    const expected = keys.map((key) => shardOf(rule, key, shards));
    await connection.query('BEGIN');
    try {
      await connection.query(`CREATE TABLE plain (id int PRIMARY KEY, "Te""nant" ${columnType})`);
      await connection.query(
        `INSERT INTO plain SELECT ordinality, key::${columnType.split(' ')[0] ?? ''} FROM unnest($1::text[]) WITH ORDINALITY AS t (key)`,
        [keys.map((key) => key?.toString() ?? null)],
      );
      await filtersPick(rule, shards, expected);
      await connection.query(`CREATE TABLE parent (id int, "Te""nant" ${columnType}) ${partitionClause(rule)}`);
      await partitionsHold(rule, partitionsOf(rule, shards, integerType), expected);
    } finally {
      await connection.query('ROLLBACK');
    }
  }

  async function filtersPick(rule: TableRule, shards: number, expected: readonly (number | null)[]): Promise<void> {
    const filters = Array.from({ length: shards }, (_, shard) => rowFilter(rule, shard, shards));
    await connection.query(
      filters
        .map((filter, shard) => `CREATE PUBLICATION p_${String(shard)} FOR TABLE plain WHERE (${filter})`)
        .join(';'),
    );
    const columns = [...filters, unplacedFilter(rule)].map((filter) => `(${filter}) IS TRUE`);
    const picked = await connection.query<{ by: boolean[] }>(
      `SELECT ARRAY[${columns.join(', ')}] AS by FROM plain ORDER BY id`,
    );
    expect(picked.rows.map(({ by }) => by)).toEqual(
      expected.map((shard) => columns.map((_, index) => index === (shard ?? shards))),
    );
  }

  async function partitionsHold(
    rule: TableRule,
    partitions: readonly Partition[],
    expected: readonly (number | null)[],
  ): Promise<void> {
    const names = partitions.map(({ shard }, index) => `p_${String(shard)}_${String(index)}`);
    const texts = partitions.map(
      ({ bound }, index) => `CREATE TABLE ${names[index] ?? ''} PARTITION OF parent ${bound}`,
    );
    await connection.query(texts.join(';'));
    await connection.query(`INSERT INTO parent SELECT * FROM plain WHERE NOT (${unplacedFilter(rule)})`);
    const { rows } = await connection.query<{ id: number; partition: string }>(
      'SELECT id, tableoid::regclass::text AS partition FROM parent ORDER BY id',
    );
    expect(rows.map(({ id, partition }) => [id, partition.split('_')[1]])).toEqual(
      expected.flatMap((shard, index) => (shard === null ? [] : [[index + 1, String(shard)]])),
    );
  }

  test('a row without a shard finds no partition either', async () => {
    const rule = ruleFor('bigint', { kind: 'values', lists: [{ values: [1n], shard: 0 }], ranges: [], default: null });
    await connection.query(`CREATE TABLE gap ("Te""nant" bigint) ${partitionClause(rule)}`);
    await connection.query(`CREATE TABLE gap_0 PARTITION OF gap ${partitionsOf(rule, 2)[0]?.bound ?? ''}`);
    for (const value of ['2', 'NULL']) {
      await expect(connection.query(`INSERT INTO gap VALUES (${value})`)).rejects.toThrow(
        'no partition of relation "gap"',
      );
    }
  });
});

test('what PostgreSQL cannot tell apart is refused with a reason', () => {
  const sha1 = ruleFor('bigint', { kind: 'hash', hasher: 'sha1' });
  expect(filterProblem(sha1)).toContain('SHA-1');
  expect(partitionProblem(sha1)).toContain('its own hash only');
  expect(() => rowFilter(sha1, 0, 2)).toThrow('filterProblem was asked');
});

test('a table that is not spread by a key is published whole, or not at all', () => {
  expect([0, 1].map((shard) => rowFilter({ kind: 'omnisharded', sticky: false }, shard, 2))).toEqual(['true', 'true']);
  expect([0, 1].map((shard) => rowFilter({ kind: 'schema-all' }, shard, 2))).toEqual(['true', 'true']);
  expect([0, 1].map((shard) => rowFilter({ kind: 'shard', shard: 1 }, shard, 2))).toEqual(['false', 'true']);
  expect(unplacedFilter({ kind: 'shard', shard: 1 })).toBe('false');
});
