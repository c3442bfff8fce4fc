/** One task: make a stream of the corpus into one that no driver would send, the same for the same numbers. */
import type { Random } from '../history/random.js';
import { ENTRANCES, LIES, type Entrance, type Lie, type Step, type Stream } from './stream.js';

const LENGTHS = [0, 3, 4, 5, 6, 9_999, 10_001, 65_536, 0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] as const;
const TYPES = Buffer.from('BCDEFHPQSXcdfpRZ1\0\xff', 'latin1');
const PLAIN = ['wait', 'cancel', 'end', 'reset', 'close-gate', 'open-gate'] as const;
const STEPS_MAX = 80;
const MUTATIONS_MAX = 4;

type Mutation = (steps: Step[], random: Random, corpus: readonly Stream[]) => void;

/** One of eight streams is left as it is but for the order of deliveries; of one in four the server lies; one in four is among shared reads. */
export function mutated(number: number, random: Random, corpus: readonly Stream[]): Stream {
  const origin = pickFrom(corpus, random);
  const steps = [...origin.steps];
  const count = random.below(8) === 0 ? 0 : 1 + random.below(MUTATIONS_MAX);
  for (let done = 0; done < count; done += 1) random.pick(MUTATIONS)(steps, random, corpus);
  const lies = random.below(4) === 0 ? someLies(random) : origin.lies;
  const entrances = Object.keys(ENTRANCES) as [Entrance, ...Entrance[]];
  const at = random.below(20) === 0 ? random.pick(entrances) : origin.at;
  const place = at === 'trust' && random.below(4) === 0 ? 'shared' : at;
  const name = `${origin.name}#${number.toString()}${count === 0 ? '=' : ''}`;
  return {
    name,
    at: place,
    seed: random.below(0x7fff_ffff),
    steps: steps.slice(0, STEPS_MAX),
    lies,
  };
}

function someLies(random: Random): readonly Lie[] {
  return Array.from({ length: 1 + random.below(2) }, () => ({
    answer: random.below(8) - 1,
    kind: random.pick(LIES),
    at: random.below(8),
    value: random.below(65_536),
  }));
}

function pickFrom<T>(choices: readonly T[], random: Random): T {
  const choice = choices[random.below(choices.length)];
  if (choice === undefined) throw new Error('the corpus is empty');
  return choice;
}

/** Changes the bytes of one of the messages. */
function onBytes(change: (bytes: Buffer, random: Random) => Buffer): Mutation {
  return (steps, random) => {
    const sends = steps.flatMap((step, index) => (step.kind === 'send' && step.bytes.length > 0 ? [index] : []));
    if (sends.length === 0) return;
    const index = pickFrom(sends, random);
    const step = steps[index];
    if (step?.kind === 'send') steps[index] = { kind: 'send', bytes: change(Buffer.from(step.bytes), random) };
  };
}

const flipByte = onBytes((bytes, random) => {
  const at = random.below(bytes.length);
  bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
  return bytes;
});
const randomByte = onBytes((bytes, random) => {
  bytes[random.below(bytes.length)] = random.below(256);
  return bytes;
});
const wrongLength = onBytes((bytes, random) => {
  const at = (bytes[0] ?? 0) === 0 ? 0 : 1;
  if (bytes.length >= at + 4) bytes.writeUInt32BE(random.pick(LENGTHS), at);
  return bytes;
});
const nearLength = onBytes((bytes, random) => {
  if (bytes.length < 5) return bytes;
  bytes.writeUInt32BE((bytes.readUInt32BE(1) + random.below(9) - 4) >>> 0, 1);
  return bytes;
});
const otherType = onBytes((bytes, random) => {
  bytes[0] = TYPES[random.below(TYPES.length)] ?? 0;
  return bytes;
});
const cutShort = onBytes((bytes, random) => bytes.subarray(0, random.below(bytes.length)));
const withoutZero = onBytes((bytes, random) => {
  const zero = bytes.indexOf(0, Math.min(5 + random.below(8), bytes.length - 1));
  if (zero >= 0) bytes[zero] = 0x41;
  return bytes;
});
const garbage = onBytes((bytes, random) =>
  Buffer.concat([bytes, Buffer.from(Array.from({ length: 1 + random.below(40) }, () => random.below(256)))]),
);

const MUTATIONS: [Mutation, ...Mutation[]] = [
  flipByte,
  randomByte,
  wrongLength,
  nearLength,
  otherType,
  cutShort,
  withoutZero,
  garbage,
  // Once more, somewhere else.
  (steps, random) => {
    if (steps.length > 0) steps.splice(random.below(steps.length + 1), 0, pickFrom(steps, random));
  },
  // Left out.
  (steps, random) => void steps.splice(random.below(steps.length + 1), 1),
  // Out of order.
  (steps, random) => {
    const [moved] = steps.splice(random.below(steps.length + 1), 1);
    if (moved !== undefined) steps.splice(random.below(steps.length + 1), 0, moved);
  },
  // What another client would have sent, in the middle or instead of the rest.
  (steps, random, corpus) => {
    const other = pickFrom(corpus, random).steps;
    const from = random.below(other.length + 1);
    const at = random.below(steps.length + 1);
    steps.splice(at, random.below(2) * steps.length, ...other.slice(from, from + 1 + random.below(8)));
  },
  (steps, random) => void steps.splice(random.below(steps.length + 1), 0, { kind: random.pick(PLAIN) }),
  (steps, random) => void steps.splice(random.below(steps.length + 1), 0, { kind: random.pick(PLAIN) }),
];
