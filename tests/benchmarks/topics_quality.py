"""Prints the topics found in the demo's posts beside the themes that their authors had in mind.

    python -m tests.benchmarks.topics_quality [--examples 2]

Purity: share of a topic's posts that are of its main theme. NMI: agreement of topics and themes, 1 is
perfect. Found: share of the posts with a theme that are in a topic. Small talk in a topic counts as wrong.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence

from sklearn.metrics import normalized_mutual_info_score

from tasks.demo.demo_posts import DemoPost, read_accounts
from tasks.import_socials.embeddings import Embedder, embedder_from
from tasks.import_socials.models import EmbeddedPost, Topic
from tasks.import_socials.topics import find_topics

OFF_TOPIC = "smalltalk"


def own_posts_by_user() -> dict[str, list[tuple[str, DemoPost]]]:
    """User to (account, post), as an import stores them."""
    users: dict[str, list[tuple[str, DemoPost]]] = {}
    for account in read_accounts():
        posts = [] if account.revoked else [post for post in account.posts if post.own]
        users.setdefault(account.user, []).extend((account.handle, post) for post in posts)
    return users


def topics_of(posts: Sequence[tuple[str, DemoPost]], embedder: Embedder) -> list[Topic]:
    """The topics of one user; a post's id is its place in `posts`."""
    texts = [f"{post.title}\n\n{post.text}".strip() for _, post in posts]
    vectors = embedder.embed(texts)
    return find_topics([EmbeddedPost(str(i), posts[i][0], texts[i], vectors[i]) for i in range(len(posts))])


def figures(themes: Sequence[str], topics: Sequence[Topic]) -> tuple[float, float, float]:
    """Purity, NMI and the share found."""
    topic_of = {int(post): number for number, topic in enumerate(topics) for post in topic.members}
    pure = sum(Counter(themes[int(post)] for post in t.members).most_common(1)[0][1] for t in topics)
    themed = [i for i, theme in enumerate(themes) if theme != OFF_TOPIC]
    both = [i for i in themed if i in topic_of]
    nmi = normalized_mutual_info_score([themes[i] for i in both], [topic_of[i] for i in both])
    return pure / max(1, len(topic_of)), float(nmi), len(both) / len(themed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=1, help="posts shown of each topic")
    shown = parser.parse_args().examples
    embedder = embedder_from(api_key=None)
    for user, posts in own_posts_by_user().items():
        started = time.perf_counter()
        topics = topics_of(posts, embedder)
        took = time.perf_counter() - started
        purity, nmi, found = figures([post.theme for _, post in posts], topics)
        print(f"\n{user}: {len(posts)} posts in {took:.2f} s")
        print(f"  purity {purity:.2f}, NMI {nmi:.2f}, found {found:.2f}")
        for topic in topics:
            themes = Counter(posts[int(post)][1].theme for post in topic.members)
            told = ", ".join(f"{theme} {n}" for theme, n in themes.most_common())
            print(f"  {topic.size:3}  {topic.label:28} {told:26} {', '.join(topic.keywords)}")
            for post in topic.example_post_ids[:shown]:
                print(f"         “{' '.join(posts[int(post)][1].text.split())[:100]}”")


if __name__ == "__main__":
    main()
