/** One task: a request typed by a person is taken as meant, or refused with a sentence that names the field. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkRequest, FIELDS_OF, moveRequest, RequestInvalid } from '../../src/cutover/request.js';

const move = { source: 'prod', destination: 'prod_new' };

test.each([
  move,
  { ...move, rollback: true },
  { ...move, publication: 'all_tables', acceptLoss: false },
  { ...move, rehearse: true, rollback: true },
  { ...move, cutover: 'approved' },
  { ...move, slot: 'mine' },
  { ...move, prepare: 'auto' },
])('%j is taken unchanged', (request) => {
  expect(checkRequest(request)).toEqual(request);
});

test.each([
  [null, 'one JSON object'],
  [[move], 'one JSON object'],
  ['prod', 'one JSON object'],
  [{}, '"source"'],
  [{ source: 'prod' }, '"destination"'],
  [{ source: '', destination: 'prod_new' }, '"source"'],
  [{ source: 1, destination: 'prod_new' }, '"source"'],
  [{ ...move, publication: 1 }, '"publication"'],
  [{ ...move, slot: null }, '"slot"'],
  [{ ...move, rollback: 'true' }, '"rollback"'],
  [{ ...move, acceptLoss: 1 }, '"acceptLoss"'],
  [{ ...move, rehearse: 'yes' }, '"rehearse"'],
  [{ ...move, rehearse: true, acceptLoss: true }, '"acceptLoss" has no meaning in a rehearsal'],
  [{ ...move, cutover: 'soon' }, '"cutover"'],
  [{ ...move, prepare: true }, '"prepare" must be "auto" or "off"'],
  [{ ...move, rolback: true }, 'unknown field "rolback"'],
  [JSON.parse('{"source":"prod","destination":"prod_new","__proto__":{}}'), 'unknown field "__proto__"'],
] as const)('%j is refused naming what is wrong', (input: unknown, sentence) => {
  expect(() => checkRequest(input)).toThrow(RequestInvalid);
  expect(() => checkRequest(input)).toThrow(sentence);
});

test('a misspelt rollback never moves the traffic forward instead', () => {
  expect(() => checkRequest({ ...move, rollBack: true })).toThrow(
    'known are source, destination, publication, rollback',
  );
});

test.each([
  ['cutover', { ...move, cutover: 'approved' }, '"cutover"'],
  ['cutover', { ...move, prepare: 'auto' }, '"prepare"'],
  ['reshard', { ...move, rollback: true }, '"rollback"'],
  ['replicate', { ...move, acceptLoss: true }, '"acceptLoss"'],
  ['schemaSync', { ...move, slot: 'mine' }, '"slot"'],
  ['verify', { ...move, rehearse: true }, '"rehearse"'],
] as const)('%s refuses a field it would pass over: %j', (workflow, request, field) => {
  expect(() => checkRequest(request, FIELDS_OF[workflow])).toThrow(`unknown field ${field}`);
  expect(checkRequest(move, FIELDS_OF[workflow])).toEqual(move);
});

test('any input is taken or refused in words, nothing else is thrown', () => {
  fc.assert(
    fc.property(fc.anything(), (input) => {
      try {
        expect(checkRequest(input)).toBe(input);
      } catch (error) {
        expect(error).toBeInstanceOf(RequestInvalid);
      }
    }),
  );
});

test('a cutover is asked for without the fields of a reshard, and without fields nobody gave', () => {
  expect(moveRequest({ ...move, ...{ cutover: 'approved', slot: 'mine' } })).toEqual(move);
  const all = { ...move, publication: 'p', rollback: false, acceptLoss: true };
  expect(moveRequest(all)).toEqual(all);
});
