/** One task: the text of /metrics is OpenMetrics 1.0 whatever is in it, and docs/monitoring.md names every metric in it. */
import { describe, expect, test } from 'vitest';
import { FAMILIES, WORKER_UP } from '../../src/monitoring/families.js';
import { exposition, sampleName, type Family } from '../../src/monitoring/openmetrics.js';
import { plain, readDocument, section, tableRows } from '../docs/markdown.js';
import { readExposition } from './exposition.js';

const gauge = (name: string, value: number, labels = {}): Family => {
  return { name, type: 'gauge', help: 'h', samples: [{ labels, value }] };
};

describe('the text', () => {
  test.each(['a"b', 'a\\', 'a\\n', 'a\nb', '\\"', ',}', 'x="y"', 'ü€😀', '\r', ''])(
    'a label with the value %j',
    (value) => {
      const read = readExposition(exposition([gauge('x', 1, { value, other: 'o' })], 'ns_'));
      expect(read.get('ns_x')?.samples).toEqual([{ name: 'ns_x', labels: { value, other: 'o' }, value: 1 }]);
    },
  );

  test.each([0, 1.5, 1e21, 1e-7, Number.MAX_SAFE_INTEGER, Infinity])('the number %d', (value) => {
    expect(readExposition(exposition([gauge('x', value)], '')).get('x')?.samples[0]?.value).toBe(value);
  });

  test('a counter has its suffix, a family without a sample is left out', () => {
    const counter: Family = { name: 'c', type: 'counter', help: 'h', samples: [{ labels: {}, value: 2 }] };
    const text = exposition([counter, { ...counter, name: 'empty', samples: [] }], '');
    expect(text).toBe('# HELP c h\n# TYPE c counter\nc_total 2\n# EOF\n');
  });
});

describe('what reads it in the tests refuses', () => {
  const good = exposition([gauge('x', 1, { a: 'b' })], '');
  test.each([
    ['no end', good.replace('# EOF\n', '')],
    ['something behind the end', `${good}\n`],
    ['an empty line', good.replace('# EOF', '\n# EOF')],
    ['a family twice', good.replace('# EOF\n', '') + good],
    ['a sample twice', good.replace('x{a="b"} 1\n', 'x{a="b"} 1\nx{a="b"} 1\n')],
    ['a counter without its suffix', good.replace('gauge', 'counter')],
    ['a bare quote', good.replace('"b"', '"b"c"')],
    ['an escape that there is not', good.replace('"b"', '"\\t"')],
    ['no HELP', good.replace('# HELP x h\n', '')],
    ['no TYPE', good.replace('# TYPE x gauge\n', '')],
  ])('%s', (_, text) => {
    expect(() => readExposition(text)).toThrow();
  });
});

test('the table in docs/monitoring.md has every metric, with its type and labels', () => {
  const [, ...rows] = tableRows(section(readDocument('docs/monitoring.md'), 'Metrics'));
  const documented = rows.map(([name = '', type]) => `${plain(name)} ${type ?? ''}`);
  expect(documented).toEqual([...FAMILIES, WORKER_UP].map((family) => `${sampleName(family)} ${family.type}`));
});

test('no name is used twice, and each says what it means', () => {
  const names = [...FAMILIES, WORKER_UP].map(sampleName);
  expect(new Set(names).size).toBe(names.length);
  for (const { help } of FAMILIES) expect(help).toMatch(/\.$/);
});
