/**
 * One task: a stream as the fuzzer plays it, and its text in a file of the corpus.
 *
 * One step a line. `send` has one message as a JSON string in which each character is one byte; `wait` lets everything come to rest;
 * `cancel` sends a cancel request for this session; `end` and `reset` close the connection; `close-gate` and `open-gate` are what a
 * cutover does. `at` names the entrance, `seed` the order of deliveries, and `lie` what the server does to its answers.
 */
/** `shared`: as `trust`, and reads of several clients share a server connection. */
export const ENTRANCES = { trust: 1, plain: 2, md5: 3, scram: 4, shared: 5 } as const;
export type Entrance = keyof typeof ENTRANCES;

export type Step =
  | { readonly kind: 'send'; readonly bytes: Buffer }
  | { readonly kind: 'wait' | 'cancel' | 'end' | 'reset' | 'close-gate' | 'open-gate' };

/** What a server does to one of its answers, counted from the first it gives this client; -1: to its login. */
export interface Lie {
  readonly answer: number;
  readonly kind: LieKind;
  readonly at: number;
  readonly value: number;
}

export const LIES = [
  'flip',
  'length',
  'type',
  'drop',
  'double',
  'swap',
  'cut',
  'garbage',
  'close',
  'extra',
  'late',
] as const;
export type LieKind = (typeof LIES)[number];

export interface Stream {
  readonly name: string;
  readonly at: Entrance;
  readonly seed: number;
  readonly steps: readonly Step[];
  readonly lies: readonly Lie[];
}

/** In the place of a client's own mark, in a text of the corpus. */
export const MARK = '~00000000~';
export const ANY_MARK = /~[0-9a-f]{8}~/g;

/** In the place of a client's own key, by which it reads the row with its mark. */
export const KEY = '000000000';
const KEYS = 1_000_000_000;

/** Of nine digits. Neighbours are far apart here too. */
export function keyOf(mark: string): string {
  return (Number.parseInt(mark.slice(1, -1), 16) % KEYS).toString().padStart(KEY.length, '0');
}

export function markOf(number: number): string {
  // Neighbours differ in half of their bits: a flipped byte makes no other client's mark.
  return `~${(Math.imul(number, 0x9e37_79b1) >>> 0).toString(16).padStart(8, '0')}~`;
}

/** @throws Error for a line that is no step */
export function readStream(name: string, text: string): Stream {
  let at: Entrance = 'trust';
  let seed = 1;
  const steps: Step[] = [];
  const lies: Lie[] = [];
  for (const line of text.split('\n').filter((each) => each !== '' && !each.startsWith('#'))) {
    const [word = '', ...rest] = line.split(' ');
    const value = rest.join(' ');
    if (word === 'send') steps.push({ kind: 'send', bytes: Buffer.from(JSON.parse(value) as string, 'latin1') });
    else if (word === 'at' && value in ENTRANCES) at = value as Entrance;
    else if (word === 'seed') seed = Number(value);
    else if (word === 'lie') {
      const [answer, kind, place, byte] = rest;
      lies.push({ answer: Number(answer), kind: kind as LieKind, at: Number(place), value: Number(byte) });
    } else if (isPlain(word)) steps.push({ kind: word });
    else throw new Error(`${name}: ${line}`);
  }
  return { name, at, seed, steps, lies };
}

type Plain = Exclude<Step['kind'], 'send'>;

function isPlain(word: string): word is Plain {
  return ['wait', 'cancel', 'end', 'reset', 'close-gate', 'open-gate'].includes(word);
}

export function writeStream({ at, seed, steps, lies }: Stream): string {
  const lines = [
    `at ${at}`,
    `seed ${seed.toString()}`,
    ...lies.map((lie) => `lie ${lie.answer.toString()} ${lie.kind} ${lie.at.toString()} ${lie.value.toString()}`),
    ...steps.map((step) =>
      step.kind === 'send' ? `send ${ascii(JSON.stringify(step.bytes.toString('latin1')))}` : step.kind,
    ),
  ];
  return `${lines.join('\n')}\n`;
}

function ascii(text: string): string {
  return text.replace(/[\x7f-\xff]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** The bytes of a message as one client sends them. */
export function marked(bytes: Buffer, mark: string): Buffer {
  if (!bytes.includes(MARK) && !bytes.includes(KEY)) return bytes;
  return Buffer.from(bytes.toString('latin1').replaceAll(MARK, mark).replaceAll(KEY, keyOf(mark)), 'latin1');
}
