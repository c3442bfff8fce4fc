/** One task: SPEC.md says what the code does, cell by cell, and every test it names exists. */
import { existsSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { TASK_EVENTS } from '../../src/cutover/contract.js';
import {
  COMMANDS,
  EVENT_OF,
  PHASE_AFTER,
  PHASES,
  SEQUENCE_OF,
  TRANSITIONS,
  type EpochEventType,
} from '../../src/cutover/epoch.js';
import { readDocument, ROOT, section, tableRows } from '../docs/markdown.js';

const SPEC = readDocument('src/cutover/SPEC.md');

/** `preparing + pauseTraffic = do`, for every cell of the page. */
function documentedTransitions(): string[] {
  const [header = [], ...rows] = tableRows(section(SPEC, 'The life of an epoch'));
  const commands = header.slice(1);
  return rows.flatMap(([phase = '', ...cells]) =>
    cells.map((outcome, column) => `${phase} + ${commands[column] ?? '?'} = ${outcome}`),
  );
}

test('the page shows every transition of the code and no other, each once', () => {
  const coded = PHASES.flatMap((phase) =>
    COMMANDS.map((command) => `${phase} + ${command} = ${TRANSITIONS[phase][command]}`),
  );
  expect(documentedTransitions()).toEqual(coded);
});

test('the page shows every event with its cause, its phase and its place', () => {
  const causes = new Map<EpochEventType, string>(COMMANDS.map((command) => [EVENT_OF[command], command]));
  const coded = (Object.keys(PHASE_AFTER) as EpochEventType[]).map((type) => [
    type,
    causes.get(type) ?? 'begin',
    PHASE_AFTER[type],
    SEQUENCE_OF[type].toString(),
  ]);
  expect(tableRows(section(SPEC, 'Events')).slice(1)).toEqual(coded);
});

test('the page names every event of a task', () => {
  const named = tableRows(section(SPEC, 'The state of a task')).slice(1);
  expect(named.map(([event]) => event)).toEqual([...TASK_EVENTS]);
});

/** Reads names the way they stand in a test's source, where a quote may be escaped. */
function namesTest(source: string, name: string): boolean {
  return [`'${name.replaceAll("'", "\\'")}'`, `"${name}"`, `\`${name}\``].some((quoted) => source.includes(quoted));
}

describe('each invariant is held by tests that exist', () => {
  const titles = [...section(SPEC, 'Invariants').matchAll(/^### (I\d .+)$/gm)].map((match) => match[1] ?? '');

  test('there are five', () => {
    expect(titles.map((title) => title.slice(0, 2))).toEqual(['I1', 'I2', 'I3', 'I4', 'I5']);
  });

  test.each(titles)('%s', (title) => {
    const named = [...section(SPEC, title).matchAll(/^- `([^`]+)`: "(.+)"$/gm)];
    expect(named.length).toBeGreaterThan(0);
    const missing = named.filter(([, file = '', name = '']) => {
      return !existsSync(`${ROOT}/${file}`) || !namesTest(readDocument(file), name);
    });
    expect(missing.map(([line]) => line)).toEqual([]);
  });
});
