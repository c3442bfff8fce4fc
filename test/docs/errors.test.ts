/** One task: docs/errors.md has one row for every error a person can meet, with its very words, and no other. */
import { expect, test } from 'vitest';
import { ERRORS, type ErrorEntry } from '../../src/errors/errors.js';
import { plain, readDocument, tableRows } from './markdown.js';

/** A row as it stands in the page; on a difference it can be pasted from the failed test. */
function row(code: string, { sqlstate, level, message, remedy }: ErrorEntry): string {
  return `| \`${code}\` | \`${sqlstate}\` | ${level} | ${message.replaceAll('|', '\\|')} | ${remedy.replaceAll('|', '\\|')} |`;
}

function documented(): string[] {
  const rows = tableRows(readDocument('docs/errors.md')).filter(([code = '']) => code.startsWith('`'));
  return rows.map(([code = '', sqlstate = '', level = '', message = '', remedy = '']) => {
    const entry = { sqlstate: plain(sqlstate), level, message, remedy } as ErrorEntry;
    return row(plain(code), entry);
  });
}

test('the page and the table of errors are the same, in both directions', () => {
  const coded = Object.entries(ERRORS).map(([code, entry]) => row(code, entry));
  expect(documented().sort()).toEqual(coded.sort());
});

test('every SQLSTATE is one a driver can read', () => {
  const wrong = Object.entries(ERRORS).filter(([, { sqlstate }]) => !/^[0-9A-Z]{5}$/.test(sqlstate));
  expect(wrong).toEqual([]);
});
