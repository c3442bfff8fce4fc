/** One task: the scanner finds exactly the messages that are there, and refuses what cannot be one. */
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { parse as parseWithDriver } from 'pg-protocol';
import { describe, expect, test } from 'vitest';
import * as backend from '../../src/wire/backend.js';
import { CLIENT_RULES, SERVER_RULES } from '../../src/wire/codes.js';
import { FrameError, FrameScanner, type FrameRules } from '../../src/wire/frames.js';
import { query, SYNC } from '../../src/wire/frontend.js';

const text = fc.string({ maxLength: 40 }).map((value) => value.replaceAll('\0', ''));

const serverMessage = fc.oneof(
  fc.constant(backend.PARSE_COMPLETE),
  fc.constant(backend.CLOSE_COMPLETE),
  fc.constantFrom('I', 'T', 'E').map((status) => backend.frame('Z', Buffer.from(status))),
  text.map(backend.commandComplete),
  fc.tuple(text, text).map(([name, value]) => backend.parameterStatus(name, value)),
  fc.array(fc.option(text), { maxLength: 5 }).map(backend.dataRow),
  text.map((name) => backend.rowDescription([{ name, typeOid: 25, typeBytes: -1 }])),
  text.map((message) => backend.errorResponse({ severity: 'ERROR', sqlstate: 'XX000', message })),
  text.map((message) => backend.errorResponse({ severity: 'NOTICE', sqlstate: '00000', message })),
  fc.uint8Array({ maxLength: 200 }).map((bytes) => backend.frame('d', Buffer.from(bytes))),
);

/** Cuts bytes at the given places. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((left, right) => left - right);
  return [...at, bytes.length]
    .map((end, index) => bytes.subarray(at[index - 1] ?? 0, end))
    .filter((part) => part.length > 0);
}

interface Found {
  readonly type: number;
  readonly bytes: Buffer;
}

/**
 * Scans chunks and puts streamed frames together again.
 *
 * @param passing all chunks come in the same memory, one after the other
 */
function scan(rules: FrameRules, chunks: readonly Buffer[], passing = false): Found[] {
  const scanner = new FrameScanner(rules);
  const found: { type: number; parts: Buffer[] }[] = [];
  const memory = Buffer.alloc(Math.max(0, ...chunks.map(({ length }) => length)));
  for (const chunk of chunks) {
    if (passing) chunk.copy(memory.fill(0xff));
    scanner.feed(passing ? memory.subarray(0, chunk.length) : chunk);
    const { buffer } = scanner;
    while (scanner.peek()) {
      const part = Buffer.from(buffer.subarray(scanner.start, scanner.end));
      if (scanner.continued) found.at(-1)?.parts.push(part);
      else found.push({ type: scanner.type, parts: [part] });
      scanner.consume();
    }
    if (passing) scanner.detach();
  }
  expect(scanner.unreadBytes).toBe(0);
  return found.map(({ type, parts }) => ({ type, bytes: Buffer.concat(parts) }));
}

describe('however the bytes are cut', () => {
  test('the frames found are the frames sent', () => {
    fc.assert(
      fc.property(fc.array(serverMessage, { minLength: 1, maxLength: 20 }), fc.array(fc.nat()), (messages, places) => {
        const found = scan(SERVER_RULES, cut(Buffer.concat(messages), places));
        expect(found.map((frame) => frame.bytes)).toEqual(messages);
      }),
    );
  });

  test('nothing is lost when each read overwrites the one before', () => {
    fc.assert(
      fc.property(fc.array(serverMessage, { minLength: 1, maxLength: 20 }), fc.array(fc.nat()), (messages, places) => {
        const found = scan(SERVER_RULES, cut(Buffer.concat(messages), places), true);
        expect(found.map((frame) => frame.bytes)).toEqual(messages);
      }),
    );
  });

  test('pg-protocol finds as many messages, of the same lengths', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(serverMessage, { minLength: 1, maxLength: 20 }),
        fc.array(fc.nat()),
        async (messages, places) => {
          const chunks = cut(Buffer.concat(messages), places);
          const lengths: number[] = [];
          // Copies: the driver moves bytes about in the chunks it is given.
          await parseWithDriver(Readable.from(chunks.map((chunk) => Buffer.from(chunk))), (message) =>
            lengths.push(message.length),
          );
          // The driver reports the length field for most messages, and fixed numbers for those without a body.
          const found = scan(SERVER_RULES, chunks);
          expect(found).toHaveLength(lengths.length);
          for (const [index, frame] of found.entries()) {
            if (frame.bytes.length > 5) expect(frame.bytes.length - 1).toBe(lengths[index]);
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  test('a frame is never handed on before the part its rule wants has come', () => {
    const large = query('x'.repeat(200_000));
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 10 }), (places) => {
        const scanner = new FrameScanner(CLIENT_RULES);
        let first = 0;
        for (const chunk of cut(large, places)) {
          scanner.feed(chunk);
          while (scanner.peek()) {
            if (first === 0) first = scanner.end - scanner.start;
            scanner.consume();
          }
        }
        expect(first).toBeGreaterThanOrEqual(65_536);
      }),
    );
  });

  test('arbitrary bytes end in frames, in waiting or in a FrameError, and in nothing else', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 10 }), (chunks) => {
        const scanner = new FrameScanner(CLIENT_RULES);
        try {
          for (const chunk of chunks) {
            scanner.feed(Buffer.from(chunk));
            while (scanner.peek()) scanner.consume();
          }
        } catch (error) {
          expect(error).toBeInstanceOf(FrameError);
        }
      }),
    );
  });
});

describe('a length that lies', () => {
  const head = (type: string, length: number): Buffer =>
    Buffer.concat([Buffer.from(type), Buffer.from(Uint32Array.of(length).buffer).swap32()]);
  const lies: [string, string, number][] = [
    ['shorter than itself', 'Q', 3],
    ['negative', 'Q', 0xffff_ffff],
    ["beyond PostgreSQL's limit", 'Q', 0x3fff_ffff],
    ['beyond the limit of a small message', 'S', 10_001],
  ];
  test.each(lies)('%s is refused before anything is waited for', (_, type, length) => {
    const scanner = new FrameScanner(CLIENT_RULES);
    scanner.feed(head(type, length));
    expect(() => scanner.peek()).toThrow(FrameError);
  });

  test('a type no client sends is refused', () => {
    const scanner = new FrameScanner(CLIENT_RULES);
    scanner.feed(head('Z', 5));
    expect(() => scanner.peek()).toThrow('"Z"');
  });
});

test('bytes put back are read again before what was waiting', () => {
  const scanner = new FrameScanner(CLIENT_RULES);
  const next = query('SELECT 2');
  scanner.feed(next.subarray(0, 7));
  expect(scanner.peek()).toBe(false);
  scanner.unshift(Buffer.concat([query('SELECT 1'), SYNC]));
  scanner.feed(next.subarray(7));
  const types: number[] = [];
  while (scanner.peek()) {
    types.push(scanner.end - scanner.start);
    scanner.consume();
  }
  expect(types).toEqual([query('SELECT 1').length, SYNC.length, next.length]);
});
