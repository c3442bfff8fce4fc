/** One task: a line of the log is one line whatever is in it, and the keys of the log mean what PgDog's mean. */
import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../src/config/load.js';
import { CutoverError } from '../../src/errors/errors.js';
import { readable } from '../../src/log.js';

const line = (fields: object): string => readable(JSON.stringify({ level: 30, time: 'T', msg: 'm', ...fields }));
const parsed = (general: string): ReturnType<typeof parseConfig> =>
  parseConfig({ file: 'c', text: `[general]\n${general}` }, { file: 'u', text: '' }, { environment: {} });

test('for reading', () => {
  expect(line({ user: 'app', client: 7, address: '127.0.0.1:5', application: '' })).toBe(
    'T INFO m user=app client=7 address=127.0.0.1:5 application=""\n',
  );
});

test.each(['a\nT ERROR b', 'a\r\nb', 'a b', 'a=b c=d', 'a"b', '\u001b[2J'])(
  '%j makes no second line and no second field',
  (text) => {
    expect(line({ user: text })).toBe(`T INFO m user=${JSON.stringify(text)}\n`);
    expect(line({ msg: text }).split('\n')).toHaveLength(2);
  },
);

describe('log_level', () => {
  test.each([
    ['"warn"', 'warn', false],
    ['"WARN"', 'warn', false],
    ['"off"', 'off', false],
    ['"debug,pgdog=trace"', 'debug', true],
    ['"pgdog=debug"', 'info', true],
  ])('%s', (written, level, warns) => {
    const { logging, warnings } = parsed(`log_level = ${written}`);
    expect(logging.level).toBe(level);
    expect(warnings.some((warning) => warning.startsWith('"log_level"'))).toBe(warns);
  });

  test.each(['"loud"', '""', '"info,"', '","', '"info;debug"'])('%s is refused', (written) => {
    expect(() => parsed(`log_level = ${written}`)).toThrow(CutoverError);
  });
});

test('a namespace is written as OpenMetrics can have it, or refused', () => {
  expect(parsed('openmetrics_namespace = "pgdog."').monitoring.namespace).toBe('pgdog_');
  for (const wrong of ['', '1a', 'a-b', 'a b', 'a{', 'ü'])
    expect(() => parsed(`openmetrics_namespace = "${wrong}"`)).toThrow();
});

test('nobody beyond the machine is told, unless an address is named', () => {
  expect(parsed('').monitoring.host).toBe('127.0.0.1');
  expect(parsed('host = "10.0.0.1"').monitoring.host).toBe('10.0.0.1');
});
