/** One task: what comes out of a splice is what was there, with what was put in. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Splice } from '../../src/proxy/splice.js';

const bytes = fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array));
/** Bytes that stay, and what comes behind them in the place of others. */
const step = fc.record({ stays: bytes, goes: bytes, comes: fc.option(bytes, { nil: undefined }) });

test('whatever is replaced, joined and in pieces, one splice after the other', () => {
  const splice = new Splice();
  fc.assert(
    fc.property(
      fc.array(step, { minLength: 1, maxLength: 8 }),
      bytes,
      bytes,
      fc.boolean(),
      (steps, before, rest, join) => {
        const was = Buffer.concat([before, ...steps.flatMap(({ stays, goes }) => [stays, goes]), rest]);
        const wanted = Buffer.concat([
          ...steps.flatMap(({ stays, comes }) => [stays, ...(comes ? [comes] : [])]),
          rest,
        ]);
        splice.begin(was, before.length);
        expect(splice.touched).toBe(false);
        let at = before.length;
        for (const { stays, goes, comes } of steps) {
          at += stays.length;
          splice.replace(at, at + goes.length, comes);
          at += goes.length;
        }
        expect(splice.touched).toBe(true);
        splice.finish(was.length);
        expect(splice.bytes).toBe(wanted.length);
        expect(join ? splice.joined() : Buffer.concat(splice.pieces())).toEqual(wanted);
      },
    ),
  );
});
