/** One task: texts for the router's tests, and the same with other values in the place of their literals. */
import fc from 'fast-check';
import type { StatementParser } from '../../src/sharding/statement-parser.js';
import * as coordinated from './coordinator-queries.js';
import * as statements from './statements.js';

const UUID = '550e8400-e29b-41d4-a716-446655440000';

/** Every text that the other tests of the router and of the coordinator have. */
export const TEXTS: readonly string[] = [
  ...Object.values(statements).flatMap((cases) => cases.map(([sql]) => sql)),
  ...coordinated.EQUAL,
  ...coordinated.REFUSED.map(({ text }) => text),
  ...coordinated.ANSWERED_OTHERWISE,
];

/** What is put in the place of a literal: each kind of it, what is almost one, and what is none. */
export const VALUES: readonly string[] = [
  ...['0', '1', '3', '42', '007', '32767', '32768', '2147483647', '2147483648', '9223372036854775807'],
  ...[
    '9223372036854775808',
    '99999999999999999999',
    '1.5',
    '3.0',
    '3.',
    '.3',
    '1e3',
    '3e0',
    '0x3',
    '0b11',
    '1_000',
    '3a',
  ],
  ...[
    '-1',
    '- 3',
    '- -3',
    '+3',
    '-(3)',
    '(3)',
    '-2147483648',
    '-9223372036854775808',
    '3--x\n',
    '3/* 1 */',
    '/* 1 */3',
  ],
  ...["''", "'3'", "' 3 '", "'-3'", "'x'", "'it''s'", "'''", "'é😀'", `'${UUID}'`, `'{${UUID.toUpperCase()}}'`],
  ...[
    "'test_value'",
    "'more than twenty characters'",
    "'twenty characters…..'",
    "'0x3'",
    "'\\'",
    "'a' 'b'",
    "'tes'\n't_value'",
  ],
  ...[
    "E'3'",
    "e'\\063'",
    "U&'3'",
    "B'1'",
    "X'1F'",
    "N'3'",
    '$$3$$',
    '$a$3$a$',
    "'3' -- x\n",
    "date'2020-01-01'",
    "int '3'",
  ],
  ...[
    'NULL',
    'TRUE',
    '$1',
    '$2',
    "'3'::int",
    '3::smallint',
    '32768::int2',
    "'3'::varchar(1)",
    '3::bigint',
    '3::float(25)',
  ],
  ...["interval '1 day'", '\'3\' COLLATE "C"', '"3"', '"a""3"', 'é3', 'a$3', "'3'; SELECT 1", '1, 3', "'3', '1'"],
];

/** Where the parser's own scanner sees a number or a string. */
function literalsOf(parser: StatementParser, sql: string): readonly (readonly [start: number, end: number])[] {
  if (parser.parse(sql) === null) return [];
  return parser
    .tokens(sql)
    .filter(({ text }) => /^['\d]/.test(text))
    .map(({ start, end }) => [start, end] as const);
}

/** The text with other values: `choices` says which, in order. */
export function mutated(parser: StatementParser, sql: string, choices: readonly number[]): string {
  let [text, from] = ['', 0];
  literalsOf(parser, sql).forEach(([start, end], index) => {
    const choice = choices[index % choices.length] ?? 0;
    // Every other one stays.
    const value = choice % 2 === 0 ? sql.slice(start, end) : VALUES[(choice >> 1) % VALUES.length];
    text += sql.slice(from, start) + (value ?? '');
    from = end;
  });
  return text + sql.slice(from);
}

/** Which value stands in the place of each literal. */
export const choices = fc.array(fc.nat(2 * VALUES.length - 1), { minLength: 1, maxLength: 5 });
