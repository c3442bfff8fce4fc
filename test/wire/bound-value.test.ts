/** One task: one value of a Bind is found where all of them are, and a Bind that ends too early is refused. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { cstring, frame, int32, uint16 } from '../../src/wire/backend.js';
import { FrameError } from '../../src/wire/frames.js';
import { readBind, readBoundValue, readBoundValues } from '../../src/wire/frontend.js';

const values = fc.array(fc.option(fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes))), {
  maxLength: 6,
});
const formats = fc.array(fc.constantFrom(0, 1), { maxLength: 6 });

test('each value, its format and whether it is NULL', () => {
  const property = fc.property(values, formats, fc.nat(8), (all, codes, index) => {
    const bytes = all.flatMap((value) => (value === null ? [int32(-1)] : [int32(value.length), value]));
    const head = [cstring('portal'), cstring('name'), uint16(codes.length), ...codes.map(uint16), uint16(all.length)];
    const bind = frame('B', ...head, ...bytes, uint16(0));
    const names = readBind(bind, 0, bind.length);
    const whole = readBoundValues(bind, names, bind.length);
    const place = readBoundValue(bind, names, bind.length, index);
    const expected = whole.values[index];
    if (expected === undefined || place === null) {
      expect([expected, place]).toEqual([undefined, null]);
      return;
    }
    expect(place.to < place.from ? null : bind.subarray(place.from, place.to)).toEqual(expected);
    expect(place.format).toBe((codes.length === 1 ? codes[0] : codes[index]) ?? 0);
  });
  fc.assert(property, { numRuns: 3_000 });
});

test.each([
  ['the counts', [uint16(3)]],
  ['the values', [uint16(0), uint16(2), int32(1)]],
  ['a value', [uint16(0), uint16(1), int32(5), Buffer.from('abc')]],
])('a Bind without the end of %s', (_, rest) => {
  const bind = frame('B', cstring(''), cstring(''), ...rest);
  const names = readBind(bind, 0, bind.length);
  expect(() => readBoundValue(bind, names, bind.length, 0)).toThrow(FrameError);
});
