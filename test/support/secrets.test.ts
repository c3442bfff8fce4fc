/** One task: whoever looks for secrets finds one that was planted, in every place and in every form, and nothing where there is none. */
import { expect, test } from 'vitest';
import { leaksIn } from './secrets.js';

const SECRET = `s3cret of "O'Neil" & söhne`;

/** As each place of the real tests holds a text: the log, an error, a history, a screen, metrics, settings of Temporal. */
const PLACES: Record<string, (text: string) => unknown> = {
  'a line of the log': (text) => [`client connected ${JSON.stringify({ user: 'app', problem: text })}`],
  'the sentence of an error': (text) => new Error(`password authentication failed: ${text}`),
  'the cause of an error': (text) => new Error('no', { cause: new Error('why', { cause: { detail: text } }) }),
  'the stack of an error': (text) => Object.assign(new Error('no'), { stack: `Error: no\n    at login (${text})` }),
  'a payload of a history': (text) => [
    { input: { payloads: [{ data: new TextEncoder().encode(`{"a":"${text}"}`) }] } },
  ],
  'the name of a field': (text) => ({ rows: [{ [text]: 1 }] }),
  'a row of SHOW': (text) => [{ name: 'password', value: text }],
  'a sample of the metrics': (text) => `# TYPE clients gauge\nclients{user="${text}"} 1\n`,
  'settings of Temporal': (text) => new Map([['metadata', new Map([['authorization', `Bearer ${text}`]])]]),
};

const FORMS: Record<string, (secret: string) => string> = {
  'in clear': (secret) => secret,
  'in JSON': (secret) => JSON.stringify({ secret }),
  'in SQL': (secret) => `ALTER ROLE app PASSWORD '${secret.replaceAll("'", "''")}'`,
  'in a URL': (secret) => `postgresql://app:${encodeURIComponent(secret)}@host/db`,
  'in a URL in small letters': (secret) => encodeURIComponent(secret).toLowerCase(),
  'in a form': (secret) => new URLSearchParams({ secret }).toString(),
  'in hex': (secret) => `\\x${Buffer.from(secret).toString('hex').toUpperCase()}`,
  base64: (secret) => Buffer.from(secret).toString('base64'),
  'base64 behind one byte': (secret) => Buffer.from(`:${secret}:`).toString('base64'),
  'base64 behind a name': (secret) => Buffer.from(`app:${secret}`).toString('base64'),
  base64url: (secret) => Buffer.from(`ab${secret}`).toString('base64url'),
};

const PLANTED = Object.keys(PLACES).flatMap((place) => Object.keys(FORMS).map((form) => ({ place, form })));

test.each(PLANTED)('found in $place, $form', ({ place, form }) => {
  const value = PLACES[place]?.(FORMS[form]?.(SECRET) ?? '');
  const leaks = leaksIn({ harmless: ['another text'], [place]: value }, ['another secret', SECRET]);
  expect(leaks.length).toBeGreaterThan(0);
  for (const leak of leaks) expect(leak).toMatch(new RegExp(`^${place}: a secret `));
});

test.each(Object.keys(PLACES))('nothing is found in %s without one', (place) => {
  expect(leaksIn({ [place]: PLACES[place]?.('nothing to hide') }, [SECRET, 'another secret'])).toEqual([]);
});
