/**
 * One task: faults for the fuzzer to find, each as a programmer could have written it.
 *
 * A fault is a change of a built file of the product, made in a copy. Some of them were in the product until the fuzzer found them.
 */
export interface Edit {
  /** below src/, as built */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

export interface PlantedFault {
  readonly name: string;
  readonly what: string;
  /** by which it is found soon; absent: 1 */
  readonly seed?: number;
  readonly edits: readonly Edit[];
}

const queue = (from: string, to: string): readonly Edit[] => [{ file: 'proxy/reply-queue.js', from, to }];

export const PLANTED: readonly PlantedFault[] = [
  {
    name: 'one-too-many',
    what: 'an error takes away one answer more than the server skips',
    edits: queue('this.#at = end - 1;', 'this.#at = Math.min(end, this.#end - 1);'),
  },
  {
    name: 'still-skipping',
    what: 'a server in the middle of a batch goes to the next client',
    edits: queue('return this.#unsynced || this.#skipping || this.copyIn;', 'return false;'),
  },
  {
    name: 'undo-forgotten',
    what: 'what a skipped Parse had noted is not taken back',
    edits: queue('this.#undos[at]?.undo();', ';'),
  },
  {
    name: 'reused-buffer',
    what: 'the head of a rewritten Bind is written into a buffer that is used again',
    edits: [
      {
        file: 'wire/frontend.js',
        from: 'const head = Buffer.allocUnsafe(names.portalEnd + 1 - start + name.length);',
        to: 'const head = (globalThis.reused ??= Buffer.alloc(20_000)).subarray(0, names.portalEnd + 1 - start + name.length);',
      },
    ],
  },
  {
    name: 'overwritten-early',
    what: 'a server is read into a buffer whose bytes the client has not taken yet',
    edits: [
      {
        file: 'postgres/direct-read.js',
        from: 'if (!isDone || grows)',
        to: 'if (grows)',
      },
    ],
  },
  {
    name: 'owner-kept',
    what: 'a server that was given back still belongs to the client before',
    edits: [
      {
        file: 'proxy/pool.js',
        from: '#takeBack(server, clean, sinceMs) {\n        server.owner = null;',
        to: '#takeBack(server, clean, sinceMs) {',
      },
    ],
  },
  {
    name: 'unnamed-kept',
    what: "the unnamed statement of the client before is taken for the next one's",
    edits: [
      {
        file: 'proxy/forwarder.js',
        from: 'if (server.unnamed === unnamed && server.unnamedAs === as)',
        to: 'if (server.unnamed !== null)',
      },
    ],
  },
  {
    name: 'length-unchecked',
    what: 'a message of any length is waited for',
    seed: 14,
    edits: [
      {
        file: 'wire/frames.js',
        from: 'if (declared < 4 || declared > (this.#rules.lengthMax[type] ?? 0))',
        to: 'if ((this.#rules.lengthMax[type] ?? 0) === 0)',
      },
    ],
  },
  {
    name: 'uncertain-statement',
    what: 'a statement whose Parse may be skipped is taken for prepared',
    edits: [
      {
        file: 'proxy/server-statements.js',
        from: 'return batch < syncs && batch >= syncs - syncsOwed;',
        to: 'return false;',
      },
    ],
  },
  {
    name: 'held-kept',
    what: 'what is held back for one client is given to the next one',
    edits: [{ file: 'proxy/server-connection.js', from: 'this.#held.forget();', to: ';' }],
  },
  {
    name: 'no-deadline',
    what: "a statement of the proxy's own is waited for without an end",
    edits: [
      {
        file: 'proxy/own-statements.js',
        from: 'this.#timer = setTimeout(this.#late, withinMs);',
        to: 'void withinMs;',
      },
    ],
  },
  {
    name: 'key-kept',
    what: 'a read by its key is run with the key of the one before',
    edits: [{ file: 'proxy/pipelining/read-templates.js', from: 'keyed?.bind(this.#queries.number);', to: '' }],
  },
  {
    name: 'opened-at-once',
    what: 'a server that breaks the protocol behind its login is opened anew without an end',
    seed: 5,
    edits: [{ file: 'proxy/server-opening.js', from: 'if (!server.usable)', to: 'if (false)' }],
  },
  {
    name: 'gone-unseen',
    what: 'nobody looks whether a client that is not read is gone',
    edits: [{ file: 'proxy/client-channel.js', from: 'if (this.#reading || this.#left || this.full)', to: '' }],
  },
  {
    name: 'any-answer',
    what: 'whatever a server says is taken for an answer to what is owed',
    edits: [
      {
        file: 'proxy/server-connection.js',
        from: 'if (!mayCome(type, this.handsOver && replies.ended ? REPLY.sync : head))',
        to: 'if (false)',
      },
    ],
  },
  {
    name: 'ready-too-soon',
    what: 'a server that is ready before it has answered is taken at its word',
    seed: 2,
    edits: queue('this.copyIn || (head !== REPLY.sync && !this.ended)', 'this.copyIn'),
  },
  {
    name: 'half-sent',
    what: 'a server that has a part of a message goes to the next client',
    edits: [{ file: 'proxy/forwarder.js', from: 'server.insideRequest = scanner.insideFrame;', to: '' }],
  },
  {
    name: 'lane-mixed',
    what: 'of reads that share a server connection, the last is given the answer of the first',
    edits: [{ file: 'proxy/pipelining/lane.js', from: 'this.#batches.shift()', to: 'this.#batches.pop()' }],
  },
];
