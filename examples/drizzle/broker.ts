import type { Message } from 'messenger-outbox';

/** Stands for your broker: resolves when it has the message, rejects when it has not. */
export const broker = {
  async publish({ topic, payload }: Message): Promise<void> {
    console.log(`published ${String(topic)} ${new TextDecoder().decode(payload)}`);
  },
};
