/** One task: a statement that is known by its bytes goes where it would go if it were looked at. */
import fc from 'fast-check';
import { beforeAll, expect, it } from 'vitest';
import { ClientStatements } from '../../src/proxy/client-statements.js';
import { pathKey, RepeatedStatements } from '../../src/proxy/repeated-statements.js';
import { StatementCache } from '../../src/proxy/statement-cache.js';
import { NO_PARAMETERS, type StatementParameters } from '../../src/sharding/router-parameters.js';
import { Router, type RoutedStatement } from '../../src/sharding/router.js';
import { loadStatementParser, type StatementParser } from '../../src/sharding/statement-parser.js';
import { cstring, frame, int32, uint16 } from '../../src/wire/backend.js';
import { parse, query } from '../../src/wire/frontend.js';
import { choices, mutated, TEXTS, VALUES } from '../sharding/other-values.js';
import { CATALOGUE, SCHEME, SEARCH_PATH, SHARDS } from '../sharding/routing-context.js';
import { THOROUGH } from '../support/thorough.js';

const RUNS = THOROUGH ? 20_000 : 600;
const PATH = pathKey(SEARCH_PATH);
const TENANT = 'SELECT * FROM orders WHERE tenant_id = ';

let parser: StatementParser;
let router: Router;
/** Keeps nothing, and looks at each text by itself. */
let reference: Router;
/** One for all, so that what was kept of one text is found for the next. */
let repeated: RepeatedStatements;
let statements: ClientStatements;
let found = 0;

beforeAll(async () => {
  parser = await loadStatementParser();
  reference = new Router(parser, { scheme: SCHEME, catalogue: CATALOGUE }, 0);
});

function begin(): void {
  router = new Router(parser, { scheme: SCHEME, catalogue: CATALOGUE });
  repeated = new RepeatedStatements(SHARDS);
  statements = new ClientStatements(new StatementCache());
  found = 0;
}

/** What is known of the bytes, held to the route of the text; then the text is kept. */
function expectSame(bytes: Buffer, sql: string, parameters: StatementParameters, body: Buffer | null): void {
  const request = { searchPath: SEARCH_PATH, parameters };
  const known = repeated.find(bytes, 0, statements, PATH);
  const routed = router.route(sql, request);
  if (known !== null) {
    found += 1;
    const { need } = repeated;
    const route = { kind: 'shard', shard: need.kind === 'shard' ? need.shard : null, write: !known.everywhere };
    expect(
      reference.routeWhole(sql, request).map((one) => one.route),
      sql,
    ).toEqual([route]);
  }
  keep(routed, sql, body);
}

function keep(routed: readonly RoutedStatement[], sql: string, body: Buffer | null): void {
  const [only] = routed;
  if (routed.length !== 1 || only === undefined || only.keyed === null || only.route.kind !== 'shard') return;
  const known = { text: sql, path: PATH, everywhere: !only.route.write };
  if (only.keyed.kind === 'literal') repeated.keepQuery(known, only.keyed);
  else if (body !== null) repeated.keepBind(known, only.keyed, body);
}

function expectSameQuery(sql: string): void {
  expectSame(query(sql), sql, NO_PARAMETERS, null);
}

it('texts with other values in them', () => {
  begin();
  const property = fc.property(fc.constantFrom(...TEXTS), choices, (sql, chosen) => {
    expectSameQuery(sql);
    expectSameQuery(sql.replace(/\b\d\b/, '8'));
    expectSameQuery(mutated(parser, sql, chosen));
  });
  fc.assert(property, { numRuns: RUNS });
  expect(found).toBeGreaterThan(RUNS / 20);
});

it.each([
  `${TENANT}V`,
  `${TENANT}-V`,
  `${TENANT}V::smallint`,
  `${TENANT}V AND amount > 3`,
  `${TENANT}3 AND amount > V`,
  `${TENANT}V -- 3`,
  `${TENANT}V OR tenant_id = 3`,
  `/* pgdog_shard: 1 */ ${TENANT}V`,
  'UPDATE orders SET amount = 1 WHERE tenant_id = V;',
  "SELECT 'é' FROM orders WHERE tenant_id = V AND state = 'é'",
])('%s with each value', (sql) => {
  begin();
  for (const value of ['3', ...VALUES, '4', ...VALUES]) expectSameQuery(sql.replaceAll('V', () => value));
});

interface Bound {
  readonly sql: string;
  readonly types: readonly number[];
  readonly formats: readonly number[];
  readonly value: Buffer | null;
}

function bindOf({ formats, value }: Bound, name: string, portal = ''): Buffer {
  const bytes = value === null ? [int32(-1)] : [int32(value.length), value];
  const head = [cstring(portal), cstring(name), uint16(formats.length), ...formats.map(uint16), uint16(1)];
  return frame('B', ...head, ...bytes, uint16(0));
}

function bodyOf({ sql, types }: Bound): Buffer {
  return Buffer.concat([cstring(sql), uint16(types.length), ...types.map(int32)]);
}

const VALUES_BOUND: readonly (Buffer | null)[] = [
  ...['3', '4', '-3', '007', ' 3', 'x', '', '99999999999', 'é'].map((text) => Buffer.from(text)),
  ...[
    Buffer.from([0, 0, 0, 3]),
    Buffer.from([0, 0, 0, 4]),
    Buffer.from([0, 3]),
    Buffer.alloc(8, 1),
    Buffer.from([0xff]),
  ],
  null,
];
const bounds = fc.record({
  sql: fc.constantFrom(
    `${TENANT}$1`,
    `${TENANT}$1::int`,
    `${TENANT}$1 AND amount > 1`,
    'SELECT * FROM people WHERE email = $1',
    'SELECT $1::int FROM orders WHERE tenant_id = 3',
    'DELETE FROM orders WHERE tenant_id = $1',
  ),
  types: fc.constantFrom([], [0], [20], [23], [25], [2950]),
  formats: fc.constantFrom([], [0], [1]),
  value: fc.constantFrom(...VALUES_BOUND),
});

it('bound values of every kind, by the unnamed statement, a named one, and one prepared in the same batch', () => {
  begin();
  const property = fc.property(bounds, fc.nat(2), (bound, way) => {
    const body = bodyOf(bound);
    const { sql, types, formats, value } = bound;
    const parameters = { values: [value], types, formats, utf8: true };
    const name = `s${body.toString('hex')}`;
    statements.unnamed = body;
    if (way === 1 && statements.get(name) === undefined) statements.prepare(name, body);
    const bytes = [bindOf(bound, ''), bindOf(bound, name), Buffer.concat([parse('p', body), bindOf(bound, 'p')])][way];
    expectSame(bytes ?? Buffer.alloc(0), sql, parameters, body);
  });
  fc.assert(property, { numRuns: RUNS });
  expect(found).toBeGreaterThan(RUNS / 20);
});

it('nothing is known of what has not come whole, is bound to a portal with a name, or was read by another search path', () => {
  begin();
  const bytes = query(`${TENANT}3`);
  expectSameQuery(`${TENANT}3`);
  expect(repeated.find(bytes, 0, statements, PATH)).not.toBeNull();
  for (let length = 0; length < bytes.length; length += 1)
    expect(repeated.find(bytes.subarray(0, length), 0, statements, PATH)).toBeNull();
  expect(repeated.find(bytes, 0, statements, pathKey(['other']))).toBeNull();
  const bound: Bound = { sql: `${TENANT}$1`, types: [20], formats: [], value: Buffer.from('3') };
  const body = bodyOf(bound);
  expectSame(Buffer.concat([parse('', body), bindOf(bound, '')]), bound.sql, parametersOf(bound), body);
  const whole = Buffer.concat([parse('', body), bindOf(bound, '')]);
  expect(repeated.find(whole, 0, statements, PATH)).not.toBeNull();
  expect(repeated.start).toBe(parse('', body).length);
  for (let length = 0; length < whole.length; length += 1)
    expect(repeated.find(whole.subarray(0, length), 0, statements, PATH)).toBeNull();
  expect(repeated.find(Buffer.concat([parse('', body), bindOf(bound, '', 'p')]), 0, statements, PATH)).toBeNull();
  expect(repeated.find(Buffer.concat([parse('', body), bindOf(bound, 'other')]), 0, statements, PATH)).toBeNull();
});

function parametersOf({ types, formats, value }: Bound): StatementParameters {
  return { values: [value], types, formats, utf8: true };
}
