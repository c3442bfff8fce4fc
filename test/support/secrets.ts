/** One task: find a secret in what a program has said, whatever it was wrapped in and however it was written. */

/** A form of one secret; its name is safe to print. */
interface Form {
  readonly name: string;
  readonly text: string;
  /** written in upper or lower case alike */
  readonly anyCase?: boolean;
}

const BASE64_BITS = 6;
const BYTE_BITS = 8;

/** Where it stands in base64 depends on how many bytes are before it: the characters that hold bits of nothing else, for each case. */
function base64Forms(secret: string): Form[] {
  return [0, 1, 2].flatMap((before) => {
    const bytes = Buffer.concat([Buffer.alloc(before), Buffer.from(secret)]);
    const first = Math.ceil((before * BYTE_BITS) / BASE64_BITS);
    const end = Math.floor((bytes.length * BYTE_BITS) / BASE64_BITS);
    return (['base64', 'base64url'] as const).map((name) => ({ name, text: bytes.toString(name).slice(first, end) }));
  });
}

/** Without what JSON and SQL put before quotes, however often it was put there. */
function unescaped(text: string): string {
  return text.replaceAll('\\', '').replace(/'+/g, "'");
}

function formsOf(secret: string): Form[] {
  return [
    { name: 'in a URL', text: encodeURIComponent(secret), anyCase: true },
    { name: 'in a form', text: new URLSearchParams([['', secret]]).toString().slice(1), anyCase: true },
    { name: 'in hex', text: Buffer.from(secret).toString('hex'), anyCase: true },
    ...base64Forms(secret),
  ];
}

/** Every text in a value, however deep: keys, errors with their causes, and bytes (as Temporal's payloads) read as text. */
export function textsIn(value: unknown, seen = new Set<object>()): readonly string[] {
  if (typeof value === 'string') return [value];
  if (value instanceof Uint8Array) return [Buffer.from(value).toString('utf8')];
  if (typeof value !== 'object' || value === null || seen.has(value)) return [];
  seen.add(value);
  const within = (inner: unknown): readonly string[] => textsIn(inner, seen);
  if (value instanceof Map || value instanceof Set) return [...value].flatMap(within);
  // What an error says is in properties that are not listed.
  const said = value instanceof Error ? [value.message, value.stack, value.cause].flatMap(within) : [];
  return [...said, ...Object.entries(value).flatMap(([key, inner]) => [key, ...within(inner)])];
}

/**
 * @param places what is looked through, by its name
 * @returns one sentence for each place and form in which a secret was found, itself without the secret
 */
export function leaksIn(places: Readonly<Record<string, unknown>>, secrets: readonly string[]): string[] {
  const forms = secrets.flatMap(formsOf);
  return Object.entries(places).flatMap(([place, value]) => {
    const text = textsIn(value).join('\n');
    const [plain, lowerCase] = [unescaped(text), text.toLowerCase()];
    const found = forms.filter((form) =>
      form.anyCase === true ? lowerCase.includes(form.text.toLowerCase()) : text.includes(form.text),
    );
    const names = found.map(({ name }) => name);
    if (secrets.some((secret) => plain.includes(unescaped(secret)))) names.push('in clear');
    return [...new Set(names)].map((name) => `${place}: a secret ${name}`);
  });
}
